"""How many times as long steps take as steps with the same contents took before. Pure."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

from llmtop.diagnosis.context_cost import device_s
from llmtop.diagnosis.step_fit import StepFit, mean_context
from llmtop.engines.core.steps import Step

LEAST = 10  # steps without prompt tokens that are compared
LEAST_WINDOW = 20  # steps in the window
LONGER = 1.2  # contexts, from which on steps do not compare: attention takes longer


def slowdown(
    window: Sequence[Step], earlier: Sequence[Step], fitted: StepFit | None
) -> float | None:
    """Window over earlier; None where they do not compare.

    fitted: the fit of the earlier steps, for contents that were not seen then. None: no fit.
    """
    if len(window) < LEAST_WINDOW:
        return None
    alike = _alike(window, earlier)
    if alike is not None:
        return alike
    context, usual = mean_context(window), mean_context(earlier)
    if fitted is None or (context is not None and usual and context > LONGER * usual):
        return None
    return _by_fit(window, fitted)


def _alike(window: Sequence[Step], earlier: Sequence[Step]) -> float | None:
    """The median over the time of the window, against the median of earlier steps with the same
    contents.

    What the launch takes longer than before is left out: then the CPU is slower, not the GPU.
    """
    before: dict[tuple[int, int], list[Step]] = {}
    for step in earlier:
        if _plain(step):
            before.setdefault(_kind(step), []).append(step)
    usual = {
        kind: (_median([device_s(step) for step in steps]), _median(_launches(steps)))
        for kind, steps in before.items()
        if len(steps) >= LEAST
    }
    found = []
    for step in window:
        known = usual.get(_kind(step)) if _plain(step) else None
        if known is not None and known[0] > 0:
            seconds, launch = known
            device = device_s(step) - max(0.0, (step.launch_s or 0.0) - launch)
            found.append((device / seconds, step.duration_s))
    return _middle(found) if len(found) >= LEAST else None


def _middle(found: list[tuple[float, float]]) -> float:
    """The value at half of the weight, of values with weights."""
    found.sort()
    sums = list(accumulate(weight for _, weight in found))
    return found[bisect(sums, sums[-1] / 2)][0]


def _by_fit(window: Sequence[Step], fitted: StepFit) -> float | None:
    found = [device_s(step) / fitted.seconds(step.requests) for step in window if _plain(step)]
    return _median(found) if len(found) >= LEAST else None


def _plain(step: Step) -> bool:
    """Whether the step only decodes."""
    return step.requests > 0 and not step.prefill_tokens and not step.draft_tokens


def _kind(step: Step) -> tuple[int, int]:
    """Steps of one kind differ by a quarter in requests and by a fifth in context at most."""
    requests, size = step.requests, step.requests.bit_length()
    context = (step.context_tokens or 0) / requests
    return size * 4 + (requests * 4 >> size), int(math.log(max(1.0, context), LONGER))


def _launches(steps: Sequence[Step]) -> list[float]:
    return [step.launch_s or 0.0 for step in steps]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
