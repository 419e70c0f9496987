"""The pressure on an engine, from its newest steps: the input of the controller of ``hold``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from llmtop.engines.core.steps import Step
from llmtop.slo_control.step_costs import CostMeter, StepCosts, first_tokens

SHORT_S = 1.0  # the window for what must be seen at once
LONG_S = 4.0  # the window for rates, and for what must not follow every prefill


class Pressure(Struct, frozen=True):
    """The state of one scheduler, a data-parallel rank, at ``time``.

    waiting, running: requests now. first_tokens_per_s: how fast the queue is served.
    arrivals_per_s: with the refused ones. refused_per_s: at the queue limit.
    tpot_s, steady_tpot_s: the mean gap between the tokens of a stream, over the last second and
    over the last four. longest_s: the longest step of the last second. ttft_s, late_tpot_s: the p95
    of the TTFTs and of the TPOTs of the last seconds, of all ranks; None: not known. quiet_s: since
    the last step. costs: of a request; None: too little was seen.
    """

    time: float
    waiting: float
    running: float
    first_tokens_per_s: float
    arrivals_per_s: float
    refused_per_s: float
    tpot_s: float | None
    longest_s: float
    steady_tpot_s: float | None = None
    ttft_s: float | None = None
    quiet_s: float = 0.0
    costs: StepCosts | None = None
    rank: int = 0

    @property
    def wait_s(self) -> float:
        """What a request that comes now will wait: the queue before it, and the step that runs."""
        if self.waiting < 1:
            return self.longest_s
        return self.waiting / max(self.first_tokens_per_s, 0.1) + self.longest_s


class PressureGauge:
    """Collects steps and reports the pressure of each rank. Steps may come in any portions.

    A rank is one scheduler with limits of its own: a mean over ranks would hide a slow one.
    """

    def __init__(self, time_scale_s: float = SHORT_S) -> None:
        self._time_scale_s = time_scale_s
        self._ranks: dict[int, _Rank] = {}

    def add(self, steps: Iterable[Step]) -> None:
        """Take new steps in, oldest first."""
        for step in steps:
            rank = self._ranks.get(step.rank)
            if rank is None:
                rank = self._ranks[step.rank] = _Rank(self._time_scale_s)
            rank.add(step)

    def clear(self) -> None:
        """The engine was restarted: its old steps no longer count."""
        self._ranks.clear()

    def read(self, now: float, ttft_s: float | None = None) -> list[Pressure]:
        """The pressure of each rank; empty before the first step."""
        return [rank.read(now, ttft_s) for _, rank in sorted(self._ranks.items())]


class _Rank:
    def __init__(self, time_scale_s: float) -> None:
        self._short_s, self._long_s = time_scale_s, time_scale_s * LONG_S / SHORT_S
        self._steps: deque[Step] = deque()
        self._meter = CostMeter(time_scale_s)

    def add(self, step: Step) -> None:
        self._meter.add(step)
        self._steps.append(step)
        while self._steps[0].end < step.end - self._long_s:
            self._steps.popleft()

    def read(self, now: float, ttft_s: float | None) -> Pressure:
        last = self._steps[-1]
        recent = [step for step in self._steps if step.end > now - self._short_s]
        window = [step for step in self._steps if step.end > now - self._long_s]
        span, grown = self._long_s, 0
        if window:
            began = window[0].end - window[0].duration_s
            span = min(self._long_s, max(self._short_s / 2, now - began))
            grown = last.waiting - window[0].waiting
        firsts = sum(first_tokens(step) for step in window)
        refused = sum(step.refused or 0 for step in window)
        quiet = now - last.end
        idle = quiet > self._short_s
        return Pressure(
            time=now,
            waiting=0.0 if idle else float(last.waiting),
            running=0.0 if idle else float(last.running),
            first_tokens_per_s=firsts / span,
            arrivals_per_s=max(0.0, firsts + refused + grown) / span,
            refused_per_s=refused / span,
            tpot_s=mean_gap(recent),
            longest_s=max((step.duration_s for step in recent), default=0.0),
            steady_tpot_s=mean_gap(window),
            ttft_s=ttft_s,
            quiet_s=quiet,
            costs=self._meter.costs(),
            rank=last.rank,
        )


def mean_gap(steps: Sequence[Step]) -> float | None:
    """The mean time between two tokens of a stream; None where none decoded."""
    decoded = sum(step.decode_tokens for step in steps)
    if not decoded:
        return None
    gap = sum(step.duration_s * _streams(step) for step in steps) / decoded
    drafting = [step for step in steps if step.draft_tokens and step.output_tokens]
    emitted = sum(step.output_tokens or 0 for step in drafting)
    asked = sum(step.requests for step in drafting)
    return gap / max(1.0, emitted / asked) if asked else gap


def _streams(step: Step) -> int:
    """How many tokens of streams a step lets wait: those it computes. SGLang computes prompts in
    steps of their own, and all other running requests wait meanwhile."""
    return step.decode_tokens or max(0, step.running - (step.prefills or 0))
