"""Estimates the cost of reading one token of context, from steps with equally many requests. Pure.

A steady load of long contexts has the same number of requests in every step. So the number of
requests gives no estimate of the cost of load. But each context grows by one token per step, and
the time of the steps grows with them. On one H200, 96 contexts of 5,000 tokens of an 8B model took
14 of the 20 ms of each step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmtop.engines.core.steps import Step

LEAST = 60  # steps that an estimate needs
GROUP = 3  # steps with equally many requests that are compared, at least
BLOCKS = 16  # of consecutive steps: the errors of neighbours are correlated, so a block counts once
CERTAIN = 4.0  # the cost must be this many times its standard error
# The share of the median step that the contexts must take. Less is noise, more has other causes.
SMALLEST, LARGEST = 0.2, 0.95


def context_cost(steps: Sequence[Step]) -> float | None:
    """Seconds for one token of context; None where the estimate is not certain.

    steps: in the order in which they ended. Only those without prompt tokens and drafts count.

    The regression compares a step only with steps of the same half that had equally many requests.
    So a GPU that becomes slower at one moment does not look like a cost of contexts. The standard
    error is cluster-robust: its clusters are blocks of consecutive steps.
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
    """The seconds of a step on the device, without the gap of the host."""
    return step.duration_s - (step.host_gap_s or 0.0)


def _centred(plain: Sequence[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Context and seconds of each step minus the means of its group. (0, 0) in a small group."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for index, (requests, _, _) in enumerate(plain):
        groups.setdefault((2 * index < len(plain), requests), []).append(index)
    found = [(0.0, 0.0)] * len(plain)
    for members in groups.values():
        if len(members) < GROUP:
            continue
        context = sum(plain[index][1] for index in members) / len(members)
        seconds = sum(plain[index][2] for index in members) / len(members)
        for index in members:
            found[index] = plain[index][1] - context, plain[index][2] - seconds
    return found


def _error(centred: Sequence[tuple[float, float]], cost: float) -> float:
    """The standard error of the cost, times the sum of squares of the centred contexts."""
    size = math.ceil(len(centred) / BLOCKS)
    blocks = [centred[start : start + size] for start in range(0, len(centred), size)]
    sums = [
        sum(context * (seconds - cost * context) for context, seconds in block) for block in blocks
    ]
    return math.sqrt(sum(one * one for one in sums) * len(sums) / max(1, len(sums) - 1))
