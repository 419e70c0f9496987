"""The figures of one run in virtual time, with the definitions of llmtop's load generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from llmtop.forecast.scheduler import VirtualRequest
from llmtop.forecast.twin import Run


class Limits(Struct, frozen=True):
    """The SLO of a request: limits in seconds. None: no limit."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


class Figures(Struct, frozen=True):
    """Latencies in seconds, and rates per second. None: no request ended.

    goodput_per_s: requests within the limits. refused: share of the arrived requests, 0..1.
    waiting: queue length at the end.
    """

    output_tokens_per_s: float | None
    requests_per_s: float | None
    ttft_p50: float | None
    ttft_p95: float | None
    tpot_p50: float | None
    tpot_p95: float | None
    itl_p99: float | None
    goodput_per_s: float | None
    refused: float
    waiting: int


def figures(run: Run, limits: Limits) -> Figures:
    """The figures of the measured part of a run.

    In an open loop the requests that arrived in that time count. In a closed loop those that ended
    in it count.
    """
    seconds = run.horizon - run.begin
    counted = [r for r in run.requests if _counts(run, r)]
    done = [r for r in counted if r.last >= 0 and not r.refused]
    ttft = [r.first - r.arrived for r in done if r.first >= 0]
    tpot = [value for r in done if (value := _tpot(r)) is not None]
    good = sum(_met(r, limits) for r in done)
    return Figures(
        output_tokens_per_s=run.tokens / seconds if run.tokens else None,
        requests_per_s=len(done) / seconds,
        ttft_p50=quantile(ttft, 0.50),
        ttft_p95=quantile(ttft, 0.95),
        tpot_p50=quantile(tpot, 0.50),
        tpot_p95=quantile(tpot, 0.95),
        itl_p99=_weighted(run.gaps, 0.99),
        goodput_per_s=good / seconds,
        refused=sum(r.refused for r in counted) / len(counted) if counted else 0.0,
        waiting=run.waiting,
    )


def _counts(run: Run, request: VirtualRequest) -> bool:
    if request.refused or not run.closed:
        return run.begin <= request.arrived < run.horizon
    return request.arrived >= 0 and run.begin <= request.last < run.horizon


def _tpot(request: VirtualRequest) -> float | None:
    if request.first < 0 or request.target < 2 or request.last <= request.first:
        return None
    return (request.last - request.first) / (request.target - 1)


def _met(request: VirtualRequest, limits: Limits) -> bool:
    if request.first < 0:
        return False
    tpot = _tpot(request)
    if limits.ttft is not None and request.first - request.arrived > limits.ttft:
        return False
    if limits.e2e is not None and request.last - request.arrived > limits.e2e:
        return False
    return limits.tpot is None or tpot is None or tpot <= limits.tpot


def quantile(values: Sequence[float], share: float) -> float | None:
    """The quantile by nearest rank; None without values. share: 0..1."""
    if not values:
        return None
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def _weighted(gaps: Sequence[tuple[float, int]], share: float) -> float | None:
    total = sum(count for _, count in gaps)
    goal = math.ceil(share * total)
    for gap, count in sorted(gaps):
        goal -= count
        if goal <= 0:
            return gap
    return None
