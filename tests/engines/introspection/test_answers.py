"""Answers of a hostile or broken plugin: each costs one clear error, none a wrong number."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llmtop.engines.core.live_protocol import LiveError, understood
from llmtop.engines.introspection import answers
from llmtop.engines.introspection.step_rows import step_rows
from tests.engines.introspection.step_answers import rows, steps_answer

HUGE = 10**400


def test_a_row_is_read_with_what_is_unknown() -> None:
    read = step_rows(steps_answer(7, 8), since=6, rank=1)
    step = read.steps[0]
    assert (step.seq, step.end, step.duration_s, step.rank) == (7, 1007.0, 0.01, 1)
    assert (step.requests, step.output_tokens) == (4, 4)
    assert step.prefills is step.launch_s is step.kv_free_blocks is None
    assert (read.boot, read.next, read.lost) == ("one", 9, 0)


def test_columns_of_a_newer_plugin_are_left_out() -> None:
    answer = steps_answer(1, 0)
    answer["columns"] = ["colour", *answer["columns"]]
    assert step_rows(answer, None, 0).steps == ()


@pytest.mark.parametrize(
    "spoilt",
    [
        {"rows": 5},
        {"rows": -1},
        {"rows": 5000},
        {"rows": True},
        {"columns": []},
        {"columns": ["seq", "seq"]},
        {"columns": "seq"},
        {"columns": [1]},
        {"columns": None},
        {"columns": {"seq": 1}},
        {"data": "%%%"},
        {"data": 5},
        {"data": None},
        {"data": "\x00"},
        {"data": base64.b64encode(b"x" * 17).decode()},
        {"boot": 1},
        {"next": HUGE},
        {"next": "9"},
        {"lost": -1},
        {"lost": 1.5},
        {"missing": []},
        {"data": rows([2, 1])},
        {"data": rows([1, 1])},
        {"data": rows([-1, 2])},
        {"data": rows([float("nan"), 2])},
        {"data": rows([1, float("inf")])},
        {"data": rows([1, 2], end=float("nan"))},
        {"data": rows([1, 2], end=-1e300)},
        {"data": rows([1, 2], running=-4)},
        {"data": rows([1, 2], running=1e300)},
        {"data": rows([1, 2], requests=float("nan"))},
        {"data": rows([1, 2], launch_s=float("inf"))},
        {"data": rows([1, 2], duration_s=-1)},
    ],
)
def test_a_spoilt_answer_about_steps_is_an_error(spoilt: dict[str, Any]) -> None:
    with pytest.raises(LiveError, match="invalid data"):
        understood(lambda told: step_rows(told, 0, 0), {**steps_answer(1, 2), **spoilt})


def test_steps_that_were_not_asked_for_are_an_error() -> None:
    with pytest.raises(LiveError):
        understood(lambda told: step_rows(told, 5, 0), steps_answer(1, 2))


ROW: dict[str, Any] = {"id": "a", "state": "running", "phase": None, "age_s": 1.0}
TABLE: dict[str, Any] = {"now": 5.0, "running": 1, "waiting": 0, "requests": [ROW]}


def test_a_table_is_cleaned() -> None:
    row = {**ROW, "id": "a\x1b[2J" + "x" * 999, "age_s": -3, "kv_blocks": 7}
    (found,) = answers.requests({**TABLE, "requests": [row]}, rank=2).rows
    assert found.id.isprintable() and len(found.id) <= 500
    assert (found.rank, found.kv_blocks) == (2, 7)
    assert found.age_s is None  # a clock that was set back
    assert len(answers.requests({**TABLE, "requests": [ROW] * 1000}, 0).rows) == 50


@pytest.mark.parametrize(
    "spoilt",
    [
        {"running": -1},
        {"now": "later"},
        {"requests": None},
        {"requests": [1]},
        {"requests": [{**ROW, "state": "asleep"}]},
        {"requests": [{**ROW, "phase": 4}]},
        {"requests": [{**ROW, "id": None}]},
        {"requests": [{**ROW, "kv_blocks": HUGE}]},
        {"requests": [{**ROW, "priority": HUGE}]},
        {"requests": [{**ROW, "age_s": float("nan")}]},
        {"requests": [{**ROW, "age_s": True}]},
        {"step": -1},
    ],
)
def test_a_spoilt_table_is_an_error(spoilt: dict[str, Any]) -> None:
    with pytest.raises(LiveError, match="invalid data"):
        understood(lambda told: answers.requests(told, 0), {**TABLE, **spoilt})


HISTOGRAM: dict[str, Any] = {"count": 2, "sum_s": 1.0, "min_s": 0.4, "max_s": 0.6, "buckets": []}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"buckets": [[1, 1]]},
        {"buckets": [[1, -2]], "count": -2},
        {"buckets": [[10**9, 2]]},
        {"buckets": [[1, 2]] * 9000},
        {"buckets": [[1, 2, 3]]},
        {"buckets": [[1, 2], [3]]},
        {"buckets": [[True, 2]]},
        {"buckets": [[1, 2.0]]},
        {"buckets": ["ab"]},
        {"buckets": [[[1], 2]]},
        {"buckets": [[-1, 2]]},
        {"buckets": [[1, HUGE]], "count": HUGE},
        {"buckets": 5},
        {"buckets": [[1, 2]], "sum_s": None},
        {"buckets": [[1, 2]], "sum_s": float("inf")},
    ],
)
def test_a_spoilt_histogram_is_an_error(spoilt: dict[str, Any]) -> None:
    answer = {"histograms": {"ttft": {**HISTOGRAM, **spoilt}}}
    with pytest.raises(LiveError, match="invalid data"):
        understood(answers.latencies, answer)


@pytest.mark.parametrize(
    "answer",
    [{}, {"aborted": 1}, {"aborted": [1], "ended_before": [], "refused": []}, {"refused": ["a"]}],
)
def test_a_spoilt_answer_to_an_abort_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(LiveError, match="invalid data"):
        understood(answers.aborted, answer)
