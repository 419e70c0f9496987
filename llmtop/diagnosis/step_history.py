"""The newest steps of an engine, kept for the diagnosis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile

from llmtop.diagnosis.step_fit import StepFit, fit, mean_context
from llmtop.diagnosis.step_window import DecodeTimes, StepWindow, window_of
from llmtop.engines.core.steps import Step, Steps

KEPT = 4096
SAMPLES = 16  # steps kept of each kind, by requests, prompt tokens, context: a load hides others
WINDOW_S = 5.0
FIT_EVERY_S = 5.0
LONGER = 1.2  # contexts, from which on steps do not compare
LEAST_EARLIER = 200  # steps before the window, for a fit that they are compared with
MOST_EARLIER = 1024  # of them that are fitted, evenly spread: three terms need no more


class StepHistory:
    """Steps of all ranks, oldest first; a fit that is renewed every few seconds.

    The fit needs steps of different contents. Some of each kind are kept beside the newest steps.

    lost: steps that were overwritten before they were read, since the history began. gaps: the
    times at which steps were lost.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.steps: deque[Step] = deque(maxlen=kept)
        self.time: float | None = None  # of the newest exchange, unix seconds
        self.lost = 0
        self.gaps: deque[float] = deque(maxlen=50)
        self._samples: dict[tuple[int, ...], deque[Step]] = {}
        self._fit: StepFit | None = None
        self._fitted_at = -1e18
        self._times: DecodeTimes | None = None
        self._before: StepFit | None = None  # the fit of steps before the window
        self._context: float | None = None  # tokens of a request in these

    def add(self, found: Steps) -> None:
        """What one exchange brought."""
        self.time = found.time or None
        if found.restarted:
            self.clear()
        if found.lost:
            self.lost += found.lost
            self.gaps.append(found.time)
        self.extend(found.steps)

    def extend(self, steps: Iterable[Step]) -> None:
        """Later steps, ordered by their end."""
        for step in steps:
            self.steps.append(step)
            if step.requests > 0:
                self._sample(step)

    def _sample(self, step: Step) -> None:
        kind = step.requests.bit_length() * 4 + (step.requests * 4 >> step.requests.bit_length())
        context = (step.context_tokens or 0) // step.requests
        place = kind, step.prefill_tokens.bit_length(), context.bit_length()
        kept = self._samples.get(place)
        if kept is None:
            kept = self._samples[place] = deque(maxlen=SAMPLES)
        kept.append(step)

    def clear(self) -> None:
        """Forget them: the engine is another process."""
        self.steps.clear()
        self._samples.clear()
        self._fit, self._times, self._before, self._fitted_at = None, None, None, -1e18

    def since(self, time: float) -> list[Step]:
        """The steps that ended after ``time``."""
        found = list(takewhile(lambda step: step.end > time, reversed(self.steps)))
        found.reverse()
        return found

    def fitted(self, now: float) -> StepFit | None:
        """The fit of all steps that are kept, for contexts as they are now."""
        self._renew(now)
        return self._fit

    def times(self, now: float) -> DecodeTimes:
        """What steps take without prompt tokens."""
        self._renew(now)
        assert self._times is not None
        return self._times

    def window(self, now: float, seconds: float = WINDOW_S) -> StepWindow | None:
        """The sums over the last seconds; None without a step in them."""
        return window_of(self.since(now - seconds), self.times(now))

    def slowdown(self, now: float, seconds: float = WINDOW_S) -> float | None:
        """How many times as long the steps of the window take as steps like them took before.

        None where that cannot be said: too few steps before, or contents that were not seen then.
        """
        self._renew(now)
        window, before = self.since(now - seconds), self._before
        if before is None or len(window) < 20:
            return None
        context, usual = mean_context(window), self._context
        if context is not None and usual is not None and context > LONGER * usual:
            return None  # attention over longer contexts takes longer
        return ratio(window, before)

    def _renew(self, now: float) -> None:
        if now - self._fitted_at < FIT_EVERY_S and self._times is not None:
            return
        self._fitted_at = now
        samples = [step for kept in self._samples.values() for step in kept]
        found = fit(samples)
        self._fit = found.at(mean_context(self.since(now - WINDOW_S))) if found else None
        self._times = DecodeTimes(samples, self._fit)
        earlier = [step for step in self.steps if step.end <= now - WINDOW_S - FIT_EVERY_S]
        earlier = earlier[:: max(1, len(earlier) // MOST_EARLIER)]
        self._before = fit(earlier) if len(earlier) >= LEAST_EARLIER else None
        self._context = mean_context(earlier)
        if self._before is not None:
            self._before = self._before.at(self._context)


def ratio(steps: Sequence[Step], before: StepFit) -> float | None:
    """The median of measured over fitted times, of steps without prompt tokens; None of few."""
    found = sorted(
        (step.duration_s - (step.host_gap_s or 0.0)) / before.seconds(step.requests)
        for step in steps
        if step.prefill_tokens == 0 and not step.draft_tokens and step.requests
    )
    return found[len(found) // 2] if len(found) >= 10 else None
