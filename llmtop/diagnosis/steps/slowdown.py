"""Computes the time of steps over the time of earlier steps with the same contents. Pure."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate

from llmtop.diagnosis.steps.context_cost import device_s
from llmtop.diagnosis.steps.fit import StepFit, fit, mean_context
from llmtop.engines.core.steps import Step

LEAST = 10  # steps without prompt tokens that are compared
LEAST_WINDOW = 20  # steps in the window
LEAST_EARLIER = 200  # earlier steps that a fit needs
MORE = 1.1  # ratio of requests above which steps are not of one kind: each request takes time
LONGER = 1.2  # ratio of mean contexts above which steps are not compared: attention takes longer

_Kind = tuple[int, int]


class UsualSteps:
    """Earlier steps, with which the steps of a window are compared.

    Their medians and their fit are computed only once, when they are first needed.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = steps

    def slowdown(self, window: Sequence[Step]) -> float | None:
        """The time of the steps in the window over that of the earlier ones; None for unknown."""
        if len(window) < LEAST_WINDOW:
            return None
        alike = self._alike(window)
        if alike is not None:
            return alike
        context, usual = mean_context(window), mean_context(self._steps)
        if context is not None and usual and context > LONGER * usual:
            return None
        # No earlier step had the contents of the window.
        return _by_fit(window, self._fitted) if self._fitted is not None else None

    def _alike(self, window: Sequence[Step]) -> float | None:
        """The median ratio of a step's time to the median of earlier steps of its kind, weighted by
        the steps' times.

        A longer launch than before is not counted, because then the CPU is slower, not the GPU.
        """
        found = []
        for step in window:
            known = self._times.get(_kind(step)) if _plain(step) else None
            if known is not None and known[0] > 0:
                seconds, launch = known
                device = device_s(step) - max(0.0, (step.launch_s or 0.0) - launch)
                found.append((device / seconds, step.duration_s))
        return _middle(found) if len(found) >= LEAST else None

    @cached_property
    def _times(self) -> Mapping[_Kind, tuple[float, float]]:
        """The median times of the device and of the launch, by kind."""
        kinds: dict[_Kind, list[Step]] = {}
        for step in self._steps:
            if _plain(step):
                kinds.setdefault(_kind(step), []).append(step)
        return {
            kind: (_median([device_s(step) for step in steps]), _median(_launches(steps)))
            for kind, steps in kinds.items()
            if len(steps) >= LEAST
        }

    @cached_property
    def _fitted(self) -> StepFit | None:
        found = fit(self._steps) if len(self._steps) >= LEAST_EARLIER else None
        return None if found is None else found.at(mean_context(self._steps))


def _middle(found: list[tuple[float, float]]) -> float:
    """The weighted median of (value, weight) pairs."""
    found.sort()
    sums = list(accumulate(weight for _, weight in found))
    return found[bisect(sums, sums[-1] / 2)][0]


def _by_fit(window: Sequence[Step], fitted: StepFit) -> float | None:
    found = [device_s(step) / fitted.seconds(step.requests) for step in window if _plain(step)]
    return _median(found) if len(found) >= LEAST else None


def _plain(step: Step) -> bool:
    """Whether the step only decodes."""
    return step.requests > 0 and not step.prefill_tokens and not step.draft_tokens


def _kind(step: Step) -> _Kind:
    """The kind of a step. Steps of one kind differ by at most a tenth in requests and by at most a
    fifth in mean context."""
    context = (step.context_tokens or 0) / step.requests
    return int(math.log(step.requests, MORE)), int(math.log(max(1.0, context), LONGER))


def _launches(steps: Sequence[Step]) -> list[float]:
    return [step.launch_s or 0.0 for step in steps]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
