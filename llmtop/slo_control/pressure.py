"""The pressure on an engine, computed from its newest steps. It is the input of ``hold``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from llmtop.engines.core.steps import Step
from llmtop.slo_control.step_costs import CostMeter, StepCosts, first_tokens

SHORT_S = 1.0  # window for values that must react at once
LONG_S = 4.0  # window for rates, and for values that must not react to each single prefill


class Pressure(Struct, frozen=True):
    """The load of one scheduler (one data-parallel rank) at ``time``. Rates are per second.

    waiting, running: requests now. first_tokens_per_s: requests that got their first token, which
    is how fast the queue is served. arrivals_per_s: new requests, including refused ones.
    refused_per_s: requests refused at the queue limit. tpot_s, steady_tpot_s: the mean gap between
    two tokens of a stream, over the short and over the long window (``SHORT_S`` and ``LONG_S`` time
    scales). longest_s: the longest step in the short window. ttft_s: the p95 of the newest TTFTs of
    all ranks, None for unknown. quiet_s: seconds since the last step. costs: the costs of a
    request, None while too few steps are known. rank: its number.
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
        """The expected wait of a request that arrives now, in seconds: for the queue before it and
        for the running step."""
        if self.waiting < 1:
            return self.longest_s
        return self.waiting / max(self.first_tokens_per_s, 0.1) + self.longest_s


class PressureGauge:
    """Collects steps and reports the pressure of each rank.

    Each rank has its own scheduler and its own limits. A mean over ranks would hide a slow one.
    time_scale_s: the length of the short window in seconds.
    """

    def __init__(self, time_scale_s: float = SHORT_S) -> None:
        self._time_scale_s = time_scale_s
        self._ranks: dict[int, _Rank] = {}

    def add(self, steps: Iterable[Step]) -> None:
        """Add new steps, oldest first. A call can add any number of them."""
        for step in steps:
            rank = self._ranks.get(step.rank)
            if rank is None:
                rank = self._ranks[step.rank] = _Rank(self._time_scale_s)
            rank.add(step)

    def clear(self) -> None:
        """Remove all steps. Call it when the engine was restarted."""
        self._ranks.clear()

    def read(self, now: float, ttft_s: float | None = None) -> list[Pressure]:
        """The pressure of each rank by rank number; [] before the first step.

        now: on the clock of the steps. ttft_s: the p95 of the newest TTFTs, None for unknown.
        """
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
    """The mean time between two tokens of a stream, in seconds; None where no request decoded."""
    decoded = sum(step.decode_tokens for step in steps)
    if not decoded:
        return None
    gap = sum(step.duration_s * _streams(step) for step in steps) / decoded
    drafting = [step for step in steps if step.draft_tokens and step.output_tokens]
    emitted = sum(step.output_tokens or 0 for step in drafting)
    requests = sum(step.requests for step in drafting)
    return gap / max(1.0, emitted / requests) if requests else gap


def _streams(step: Step) -> int:
    """How many streams wait for a step: those that decode in it. In a step without decoding, all
    running requests wait: SGLang computes prompts in separate steps."""
    return step.decode_tokens or max(0, step.running - (step.prefills or 0))
