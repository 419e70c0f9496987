"""A verdict on each measure: whether this client's error bound is negligible."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from llmtop.loadgen.core.measures import NAMES, Bound, Measure, Sources, Verdict
from llmtop.loadgen.statistics import wilson
from llmtop.loadgen.statistics.bounds import bounds
from llmtop.loadgen.statistics.error_source import reason

MOST = 0.10  # of the value, or of the tested limit: above it the figure is not valid
LEAST_S = {Measure.TTFT: 1e-3, Measure.E2E: 1e-3}  # always negligible
LEAST_GAP_S = 1e-4
LEAST_N = {"p95": 20, "p99": 100}  # with fewer observations there is no such quantile


def judge(
    sources: Sources,
    limits: Mapping[str, float] | None = None,
    *,
    share: float = 0.95,
    remedy: str = "",
) -> tuple[Verdict, ...]:
    """A verdict on each measure that has a value.

    limits: under test, seconds by name of the measure. share: of requests that must meet them.
    remedy: what helps if a measure is not valid.
    """
    limits = limits or {}
    found: list[Verdict] = []
    for bound in bounds(sources):
        if bound.measure is Measure.ATTAINMENT:
            valid = not sources.void and (
                _same_answer(sources, share)
                or all(one.valid for one in found if one.measure.value in limits)
            )
        elif bound.n < LEAST_N.get(bound.quantile, 0):
            continue
        else:
            valid = _small(bound, limits.get(bound.measure.value))
        found.append(_verdict(bound, sources, valid, remedy))
    return tuple(found)


def affected(verdicts: Iterable[Verdict], asked: Iterable[Measure]) -> tuple[Verdict, ...]:
    """The quantile with the largest error by the client, of each measure of interest."""
    wanted = set(asked)
    worst: dict[Measure, Verdict] = {}
    for one in verdicts:
        if one.valid or one.measure not in wanted:
            continue
        if one.measure not in worst or one.share >= worst[one.measure].share:
            worst[one.measure] = one
    return tuple(worst.values())


def valid_measures(verdicts: Iterable[Verdict]) -> list[str]:
    """Names of the valid measures: ``TTFT``, or ``TTFT p50`` if a tail is not valid."""
    verdicts = tuple(verdicts)
    names = []
    for measure in dict.fromkeys(one.measure for one in verdicts):
        mine = [one for one in verdicts if one.measure is measure]
        if all(one.valid for one in mine):
            names.append(NAMES[measure])
        else:
            names += [one.name for one in mine if one.valid]
    return names


def _verdict(bound: Bound, sources: Sources, valid: bool, remedy: str) -> Verdict:
    error = bound.error
    return Verdict(
        bound.measure,
        bound.quantile,
        bound.value,
        error if math.isfinite(error) else None,
        valid,
        "" if valid else reason(bound, sources),
        "" if valid else remedy,
    )


def _small(bound: Bound, limit: float | None) -> bool:
    least = 0.0
    if bound.measure is not Measure.THROUGHPUT:
        least = LEAST_S.get(bound.measure, LEAST_GAP_S)
    if bound.value is not None and bound.moved == 0.0 and bound.blur:
        return True  # only the clocks and buckets, which are negligible
    return bound.error <= max(MOST * max(bound.value or 0.0, limit or 0.0), least)


def _same_answer(sources: Sources, share: float) -> bool:
    """Whether the verdict on the limits is the same at both bounds."""
    assert sources.attained is not None
    low, _, high, n = sources.attained
    return wilson.judge(low, n, share) is wilson.judge(high, n, share)
