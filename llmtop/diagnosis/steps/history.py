"""The newest steps of an engine, kept for the diagnosis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile

from llmtop.diagnosis.steps.fit import StepFit, fit, mean_context
from llmtop.diagnosis.steps.slowdown import UsualSteps
from llmtop.diagnosis.steps.window import DecodeTimes, StepWindow, window_of
from llmtop.engines.core.steps import Step, Steps

KEPT = 4096
# Steps kept for the fit of each kind. A kind is a range of requests, prompt tokens and context. A
# constant load would otherwise replace all steps by similar ones.
SAMPLES = 16
WINDOW_S = 5.0
FIT_EVERY_S = 5.0
NEWEST = 2048  # newest steps from which the cost of contexts is learned
MOST_FITTED = 1024  # about so many of the earlier steps are fitted: three terms need no more


class StepHistory:
    """The newest steps of all ranks, oldest first, and a fit that is renewed every few seconds.

    The fit needs steps with different contents. So some steps of each kind are kept in addition.
    kept: number of newest steps. time: of the newest exchange with the engine, unix seconds. lost:
    steps that were overwritten before they were read. gaps: the times at which steps were lost.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.steps: deque[Step] = deque(maxlen=kept)
        self.time: float | None = None
        self.lost = 0
        self.gaps: deque[float] = deque(maxlen=50)
        self._samples: dict[tuple[int, ...], deque[Step]] = {}
        self._fit: StepFit | None = None
        self._fitted_at = -1e18
        self._times: DecodeTimes | None = None
        self._usual = UsualSteps()  # those before the window

    def add(self, found: Steps) -> None:
        """Add the steps of one exchange with the engine."""
        self.time = found.time or None
        if found.restarted:
            self.clear()
        if found.lost:
            self.lost += found.lost
            self.gaps.append(found.time)
        self.extend(found.steps)

    def extend(self, steps: Iterable[Step]) -> None:
        """Add later steps, ordered by their end."""
        for step in steps:
            self.steps.append(step)
            if step.requests > 0:
                self._sample(step)

    def _sample(self, step: Step) -> None:
        context = (step.context_tokens or 0) // step.requests
        prompt_range = step.prefill_tokens.bit_length()
        key = _request_range(step.requests), prompt_range, context.bit_length()
        kept = self._samples.get(key)
        if kept is None:
            kept = self._samples[key] = deque(maxlen=SAMPLES)
        kept.append(step)

    def clear(self) -> None:
        """Remove all steps, because the engine is a new process."""
        self.steps.clear()
        self._samples.clear()
        self._fit, self._times, self._fitted_at = None, None, -1e18
        self._usual = UsualSteps()

    def since(self, time: float) -> list[Step]:
        """The steps that ended after ``time`` (unix seconds), oldest first."""
        found = list(takewhile(lambda step: step.end > time, reversed(self.steps)))
        found.reverse()
        return found

    def fitted(self, now: float) -> StepFit | None:
        """The fit of all sampled steps, for the present mean context; None for no fit."""
        self._renew(now)
        return self._fit

    def times(self, now: float) -> DecodeTimes:
        """The times of steps without prompt tokens."""
        self._renew(now)
        assert self._times is not None
        return self._times

    def window(self, now: float, seconds: float = WINDOW_S) -> StepWindow | None:
        """The sums over the steps of the last ``seconds``; None without any."""
        return window_of(self.since(now - seconds), self.times(now))

    def slowdown(self, now: float, seconds: float = WINDOW_S) -> float | None:
        """The time of the steps in the window over the time of similar steps before.

        None where it is unknown: too few steps in the window or before it, or longer contexts.
        """
        self._renew(now)
        return self._usual.slowdown(self.since(now - seconds))

    def _renew(self, now: float) -> None:
        if now - self._fitted_at < FIT_EVERY_S and self._times is not None:
            return
        self._fitted_at = now
        samples = [step for kept in self._samples.values() for step in kept]
        found = fit(samples, list(self.steps)[-NEWEST:])
        self._fit = found.at(mean_context(self.since(now - WINDOW_S))) if found else None
        self._times = DecodeTimes(samples, self._fit)
        earlier = [step for step in self.steps if step.end <= now - WINDOW_S - FIT_EVERY_S]
        self._usual = UsualSteps(_evenly_spaced(earlier))


def _evenly_spaced(steps: Sequence[Step]) -> list[Step]:
    """Evenly spaced steps: fewer than ``2 * MOST_FITTED`` of these."""
    return list(steps)[:: max(1, len(steps) // MOST_FITTED)]


def _request_range(requests: int) -> int:
    """The number of a range of requests: two ranges for each power of two."""
    size = requests.bit_length()
    return size * 4 + (requests * 4 >> size)
