"""Step sums of a SGLang server without a plugin: ``GET /v1/loads``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmtop.engines.introspection.step_means import between
from llmtop.engines.sglang.loads import moments
from llmtop.wording.steps import means_lines


def page(time: float, steps: list[tuple[int, float]], **more: Any) -> str:
    """What a server reports after these decode steps (requests, seconds)."""
    us = [(requests, seconds * 1e6) for requests, seconds in steps]
    sums = [
        len(us),
        sum(b for b, _ in us),
        sum(t for _, t in us),
        sum(b * b for b, _ in us),
        sum(b * t for b, t in us),
        sum(b for b, _ in us),
    ]
    load = {"timestamp": time, "dp_rank": 0, "decode_moments": sums, **more}
    prefill = {"total_prefill_uncached_tokens": 2880, "total_prefill_busy_us": 250_000}
    return json.dumps({"loads": [{**prefill, **load}]})


def test_two_readings_give_the_mean_step_and_its_line() -> None:
    steps = [(b, 0.005 + 0.0002 * b) for b in (4, 8, 12, 16) for _ in range(25)]
    before = moments(page(100.0, [(500, 9.0)]))
    after = moments(page(104.0, [(500, 9.0), *steps], total_prefill_uncached_tokens=3880))
    found = between(before, after)
    assert found is not None
    assert (found.steps, found.window_s, found.tokens, found.ranks) == (100, 4.0, 1000, 1)
    assert found.mean_s == pytest.approx(0.007)
    assert found.mean_requests == pytest.approx(10)
    assert found.base_s == pytest.approx(0.005)
    assert found.per_request_s == pytest.approx(0.0002)
    assert found.prefill_tokens == 1000
    assert means_lines(found)[0] == (
        "100 decode steps in 4s: mean 7.0ms  mean batch 10.0  1,000 tokens"
    )


def test_a_batch_that_hardly_varied_has_no_line() -> None:
    before = moments(page(1.0, [(1, 0.01)]))
    found = between(before, moments(page(5.0, [(1, 0.01), *[(8, 0.01)] * 50])))
    assert found is not None
    assert (found.mean_requests, found.base_s, found.per_request_s) == (8, None, None)


def test_a_rank_without_a_step_yet_counts_from_zero() -> None:
    none = '{"loads": [{"timestamp": 1.0, "decode_moments": null}]}'
    found = between(moments(none), moments(page(3.0, [(2, 0.1)])))
    assert found is not None
    assert (found.steps, found.mean_requests) == (1, 2)


@pytest.mark.parametrize("later", [page(90.0, [(1, 0.1)]), page(200.0, []), "{}"])
def test_a_restart_or_nothing_new_is_unknown(later: str) -> None:
    assert between(moments(page(100.0, [(1, 0.1)] * 9)), moments(later)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"loads": 5}',
        '{"loads": [5]}',
        '{"loads": [{"decode_moments": [1, 2]}]}',
        '{"loads": [{"timestamp": 1, "decode_moments": [1, 2, 3, 4, 5, NaN]}]}',
        '{"loads": [{"timestamp": "x", "decode_moments": [1, 2, 3, 4, 5, 6]}]}',
        '{"loads": [{"timestamp": 1, "decode_moments": [1, 2, 3, 4, 5, -6]}]}',
        '{"loads": [{"timestamp": 1}]}',
        "[" * 100_000,
    ],
)
def test_an_answer_without_sums_is_none(text: str) -> None:
    assert moments(text) == ()
