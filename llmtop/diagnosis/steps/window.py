"""Splits the time of the steps in a window into decode, prefill, host and idle. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from msgspec import Struct

from llmtop.diagnosis.steps.context_cost import device_s
from llmtop.diagnosis.steps.fit import StepFit
from llmtop.engines.core.steps import Step


class Parts(Struct, frozen=True):
    """Seconds by part. host: the device waited for the host although there was work. idle: there
    was no work."""

    decode: float = 0.0
    prefill: float = 0.0
    host: float = 0.0
    idle: float = 0.0

    @property
    def busy(self) -> float:
        """Seconds within steps."""
        return self.decode + self.prefill + self.host

    @property
    def total(self) -> float:
        """Seconds within steps and idle."""
        return self.busy + self.idle


class DecodeTimes:
    """The time that a step would take without its prompt tokens, learned from decode steps.

    steps: the sampled steps. fitted: for numbers of requests that no decode step had.
    """

    def __init__(self, steps: Sequence[Step], fitted: StepFit | None = None) -> None:
        self._fitted = fitted
        self._known: list[tuple[int, float]] = []
        self._cache: dict[int, float | None] = {}
        plain = sorted(
            (s.requests, device_s(s)) for s in steps if s.prefill_tokens == 0 and s.requests > 0
        )
        for requests, group in groupby(plain, key=lambda pair: pair[0]):
            times = sorted(time for _, time in group)
            self._known.append((requests, times[len(times) // 2]))

    def seconds(self, requests: int) -> float | None:
        """The median time of the decode steps with the nearest number of requests, in seconds.

        The fit is used where no such step is near. None where neither is known.
        """
        if requests not in self._cache:
            self._cache[requests] = self._nearest(requests)
        return self._cache[requests]

    def _nearest(self, requests: int) -> float | None:
        if not self._known:
            return self._fitted.seconds(requests) if self._fitted is not None else None
        near, time = min(self._known, key=lambda pair: abs(pair[0] - requests))
        if self._fitted is not None and abs(near - requests) > 0.2 * max(near, requests):
            return self._fitted.seconds(requests)
        return time


def parts_of(step: Step, times: DecodeTimes) -> Parts:
    """The time of one step, split into parts.

    The prefill part is the time above that of a step without prompt tokens. Where no such step is
    known, the time is split by the numbers of prompt and decode tokens.
    """
    host = min(step.host_gap_s or 0.0, step.duration_s)
    rest = max(0.0, step.duration_s - host)
    idle = step.idle_s or 0.0
    if step.prefill_tokens == 0:
        return Parts(rest, 0.0, host, idle)
    decoding = step.decode_tokens  # includes draft tokens
    if decoding == 0:
        return Parts(0.0, rest, host, idle)
    plain = times.seconds(step.requests)
    if plain is None:
        plain = rest * decoding / (decoding + step.prefill_tokens)
    return Parts(min(rest, plain), max(0.0, rest - plain), host, idle)


class StepWindow(Struct, frozen=True):
    """Sums and means over the steps of a window.

    steps: oldest first. seconds: the length of the window. running, waiting: means weighted by
    time, all ranks together. requests and tokens: sums over the steps. recomputed: the estimated
    share of the prompt tokens that were computed again after a preemption, 0..1. median_s,
    longest_s: of one step. host_known: whether the engine reports host gaps. ranks: their number.
    """

    steps: tuple[Step, ...]
    seconds: float
    parts: Parts
    running: float
    waiting: float
    requests: int
    prefill_tokens: int
    decode_tokens: int
    draft_tokens: int
    accepted_tokens: int
    preempted: int
    recomputed: float
    median_s: float
    longest_s: float
    host_known: bool
    ranks: int

    @property
    def per_request(self) -> float:
        """Prompt and draft tokens in a step, per request in the step."""
        extra = self.prefill_tokens + self.draft_tokens
        return extra / self.requests if self.requests else 0.0

    @property
    def rejected_tokens(self) -> int:
        """Draft tokens that were computed and then rejected."""
        return max(0, self.draft_tokens - self.accepted_tokens)

    @property
    def acceptance(self) -> float | None:
        """The accepted share of the draft tokens, 0..1; None without drafts."""
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else None


def window_of(steps: Sequence[Step], times: DecodeTimes) -> StepWindow | None:
    """The sums over these steps, oldest first; None without any."""
    if not steps:
        return None
    decode = prefilling = host = idle = 0.0
    ranks = {step.rank for step in steps}
    weight = running = waiting = 0.0
    for step in steps:
        parts = parts_of(step, times)
        decode += parts.decode
        prefilling += parts.prefill
        host += parts.host
        idle += parts.idle
        weight += step.duration_s
        running += step.running * step.duration_s
        waiting += step.waiting * step.duration_s
    durations = sorted(step.duration_s for step in steps)
    prefill = sum(step.prefill_tokens for step in steps)
    again = sum(
        step.preempted * step.context_tokens / step.requests
        for step in steps
        if step.preempted and step.context_tokens and step.requests
    )
    return StepWindow(
        tuple(steps),
        seconds=max(1e-9, steps[-1].end - steps[0].end + steps[0].duration_s),
        parts=Parts(decode, prefilling, host, idle),
        running=len(ranks) * running / weight if weight else 0.0,
        waiting=len(ranks) * waiting / weight if weight else 0.0,
        requests=sum(step.requests for step in steps),
        prefill_tokens=prefill,
        decode_tokens=sum(step.decode_tokens for step in steps),
        draft_tokens=sum(step.draft_tokens or 0 for step in steps),
        accepted_tokens=sum(step.accepted_tokens or 0 for step in steps),
        preempted=sum(step.preempted or 0 for step in steps),
        recomputed=_recomputed(steps, again, prefill),
        median_s=durations[len(durations) // 2],
        longest_s=durations[-1],
        host_known=any(step.host_gap_s is not None for step in steps),
        ranks=len(ranks),
    )


def _recomputed(steps: Sequence[Step], again: float, prefill: int) -> float:
    """The estimated share of prompt tokens that were computed again after a preemption.

    There are two estimates: from the mean context of the running requests, and from the share of
    prefills that follow a preemption. The lower one is used, because engines preempt the latest
    arrivals, whose contexts are short. again: tokens by the first estimate.
    """
    if not prefill:
        return 0.0
    preempted = sum(step.preempted or 0 for step in steps)
    prefills = sum(step.prefills or 0 for step in steps)
    by_context = again / prefill if again else 1.0
    by_count = preempted / prefills if prefills else 1.0
    return min(1.0, by_context, by_count) if preempted else 0.0
