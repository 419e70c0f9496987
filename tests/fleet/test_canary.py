"""The verdict on a canary: sure harm, no harm seen, or not known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llmtop.cli.options.canary_engine import PATIENCE_S, Problem, lasting_problem
from llmtop.engines.core.latencies import LatencyHistogram, bucket_of
from llmtop.engines.core.samples import BucketHistogram
from llmtop.fleet.canary import (
    Counts,
    Verdict,
    batches,
    bucket_counts,
    exact_counts,
    judge,
    total,
)

INF = float("inf")


def side(n: float, surely: float, perhaps: float | None = None) -> dict[str, Counts]:
    return {"ttft": Counts(n, surely, surely if perhaps is None else perhaps)}


@pytest.mark.parametrize(
    ("canary", "others", "verdict"),
    [
        (side(200, 198), side(600, 595), Verdict.NOT_WORSE),
        (side(200, 100), side(600, 595), Verdict.WORSE),
        (side(200, 10), side(600, 30), Verdict.NOT_WORSE),  # all are late: the setting is not why
        (side(10, 0), side(600, 600), Verdict.UNDECIDED),
        (side(200, 200), side(5, 5), Verdict.UNDECIDED),
        # The limit lies in a wide bucket: all of the canary's may have been in time.
        (side(200, 0, 200), side(600, 595), Verdict.NOT_WORSE),
        (side(200, 0, 50), side(600, 595), Verdict.WORSE),
    ],
)
def test_the_verdict(
    canary: dict[str, Counts], others: dict[str, Counts], verdict: Verdict
) -> None:
    found = judge(canary, others)
    assert found.verdict is verdict and found.words


def test_one_limit_that_is_broken_is_enough() -> None:
    canary = {"ttft": Counts(100, 100, 100), "tpot": Counts(100, 20, 20)}
    others = {"ttft": Counts(100, 100, 100), "tpot": Counts(100, 99, 99)}
    found = judge(canary, others)
    assert found.verdict is Verdict.WORSE
    assert "tpot: canary 20% in time (n=100), others 99% in time (n=100)" in found.words


def test_who_looks_early_wants_more_evidence() -> None:
    canary, others = side(40, 34), side(120, 118)
    assert judge(canary, others).verdict is Verdict.WORSE
    assert judge(canary, others, 0.999).verdict is not Verdict.WORSE


def test_counts_from_exact_histograms() -> None:
    buckets: dict[int, int] = {}
    for value in (0.1, 0.2, 0.3, 0.9):
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    assert exact_counts(LatencyHistogram(4, 1.5, None, None, buckets), 0.5) == Counts(4, 3, 3)


def test_counts_from_wide_buckets_are_a_range() -> None:
    histogram = BucketHistogram((0.25, 1.0, INF), (10.0, 60.0, 80.0), 40.0)
    assert bucket_counts(histogram, 0.5) == Counts(80.0, 10.0, 60.0)
    assert bucket_counts(histogram, 1.0) == Counts(80.0, 60.0, 60.0)
    assert bucket_counts(histogram, 5.0) == Counts(80.0, 60.0, 80.0)


def test_a_restart_leaves_nothing_to_compare() -> None:
    assert Counts(5, 5, 5).minus(Counts(100, 90, 95)) == Counts()
    assert Counts(150, 120, 130).minus(Counts(100, 90, 95)) == Counts(50, 30, 35)
    assert total([Counts(1, 1, 1), Counts(2, 0, 1)]) == Counts(3, 1, 2)


def test_batches_double() -> None:
    assert batches(list("abcdefgh"), 1) == [["a"], ["b", "c"], ["d", "e", "f", "g"], ["h"]]


SILENT, ENDED = Problem("one is unresponsive", transient=True), Problem("one is failed")


@pytest.mark.parametrize(
    ("checks", "words", "waited_s"),
    [
        ([Problem()], "", 0.0),
        ([SILENT, SILENT, Problem()], "", 1.0),  # one late answer is no harm of a setting
        ([ENDED], "one is failed", 0.0),
        ([SILENT, ENDED], "one is failed", 0.5),
        ([SILENT] * 100, "one is unresponsive", PATIENCE_S),
    ],
)
def test_an_engine_that_is_silent_for_a_moment_serves(
    checks: list[Problem], words: str, waited_s: float
) -> None:
    answers: Iterator[Problem] = iter(checks)
    now = 0.0

    async def check() -> Problem:
        return next(answers)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert asyncio.run(lasting_problem(check, monotonic=lambda: now, sleep=sleep)) == words
    assert now == waited_s
