"""What reading one token of context costs a step, from steps with equally many requests. Pure.

A steady load of long contexts has the same number of requests in every step. Then the number of
requests tells nothing about the cost of load. But contexts grow by one token a request and step,
and the time of the steps grows with them. On one H200, 96 contexts of 5,000 tokens of an 8B model
took 14 of 20 ms of each step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmtop.engines.core.steps import Step

LEAST = 60  # steps
GROUP = 3  # steps with equally many requests, at least
BLOCKS = 16  # of consecutive steps: neighbours share their disturbances, so a block counts as one
CERTAIN = 4.0  # times its standard error
SMALLEST, LARGEST = 0.2, 0.95  # of the median step. Less is noise, more is not context alone.


def context_cost(steps: Sequence[Step]) -> float | None:
    """Seconds for one token of context; None where the steps do not tell it for certain.

    steps: in the order in which they ended. Only those without prompt tokens and drafts count.

    The regression compares steps only with steps of the same half that had equally many requests:
    a GPU that becomes slower at one moment is no cost of contexts. Its standard error is that of
    blocks of consecutive steps (a cluster-robust variance).
    """
    plain = [
        (step.requests, float(step.context_tokens), device_s(step))
        for step in steps
        if step.requests > 0
        and not step.prefill_tokens
        and not step.draft_tokens
        and step.context_tokens is not None
    ]
    if len(plain) < LEAST:
        return None
    centred = _centred(plain)
    spread = sum(context * context for context, _ in centred)
    if spread <= 0:
        return None
    cost = sum(context * seconds for context, seconds in centred) / spread
    times = sorted(seconds for _, _, seconds in plain)
    middle = times[len(times) // 2]
    if middle <= 0:
        return None
    share = cost * sum(context for _, context, _ in plain) / len(plain) / middle
    if not SMALLEST <= share <= LARGEST:
        return None
    return cost if cost >= CERTAIN * _error(centred, cost) / spread else None


def device_s(step: Step) -> float:
    """The time of the device in a step, seconds."""
    return step.duration_s - (step.host_gap_s or 0.0)


def _centred(plain: Sequence[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Context and seconds of each step, less the means of the steps that it is compared with."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for place, (requests, _, _) in enumerate(plain):
        groups.setdefault((2 * place < len(plain), requests), []).append(place)
    found = [(0.0, 0.0)] * len(plain)
    for places in groups.values():
        if len(places) < GROUP:
            continue
        context = sum(plain[place][1] for place in places) / len(places)
        seconds = sum(plain[place][2] for place in places) / len(places)
        for place in places:
            found[place] = plain[place][1] - context, plain[place][2] - seconds
    return found


def _error(centred: Sequence[tuple[float, float]], cost: float) -> float:
    """The standard error of the cost, times the spread of the contexts."""
    size = math.ceil(len(centred) / BLOCKS)
    blocks = [centred[start : start + size] for start in range(0, len(centred), size)]
    sums = [
        sum(context * (seconds - cost * context) for context, seconds in block) for block in blocks
    ]
    return math.sqrt(sum(one * one for one in sums) * len(sums) / max(1, len(sums) - 1))
