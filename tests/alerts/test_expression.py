"""Conditions as they are written, and what they say of an engine."""

from __future__ import annotations

import pytest

from llmtop import UsageError
from llmtop.alerts.expression import Range, Snapshot, parse


@pytest.mark.parametrize(
    ("text", "subject", "limit", "for_s"),
    [
        ("slo.ttft_p95 > 500ms for 30s", "ttft_p95", 0.5, 30.0),
        ("hung", "hung", 0.0, 0.0),
        ("NEAR KNEE for 1m30s", "near_knee", 0.0, 90.0),
        ("kv > 95% for 1m", "kv", 0.95, 60.0),
        ("state = failed", "state", "failed", 0.0),
        ("tok/s < 100", "tok/s", 100.0, 0.0),
        ("wait>=8", "waiting", 8.0, 0.0),
    ],
)
def test_conditions_are_read_as_people_write_them(
    text: str, subject: str, limit: object, for_s: float
) -> None:
    found = parse(text)
    assert (found.subject, found.for_s) == (subject, for_s)
    if found.operator is not None:
        assert found.limit == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft_p95 > 500", "500"),
        ("kv > 95", "95"),
        ("kv > -1%", "-1%"),
        ("ttf_p95 > 1s", "ttf_p95"),
        ("state = broken", "broken"),
        ("hung for ever", "ever"),
        ("hung for 10d", "10d"),
        ("", "condition"),
        ("kv > 95% and hung", "95% and hung"),
        ("running > nan", "nan"),
        ("__import__('os')", "condition"),
    ],
)
def test_what_cannot_be_meant_costs_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert words in error.value.message


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("ttft_p95 > 500ms", Range(0.6, 0.9), True),
        ("ttft_p95 > 500ms", Range(0.1, 0.4), False),
        ("ttft_p95 > 500ms", Range(0.25, 1.0), None),  # the limit lies in the bucket
        ("ttft_p95 > 500ms", Range(0.5, 1.0), True),  # what is in the bucket is above its low end
        ("ttft_p95 > 500ms", Range(80.0, None), True),
        ("ttft_p95 < 500ms", Range(0.0, 0.3), True),
        ("ttft_p95 < 500ms", Range(0.25, 1.0), None),
        ("ttft_p95 > 500ms", None, None),
        ("waiting = 0", Range(0.0, 0.0), True),
        ("waiting != 0", Range(3.0, 3.0), True),
    ],
)
def test_a_range_decides_only_what_it_can(text: str, value: Range | None, holds: object) -> None:
    found = parse(text)
    assert found.holds(Snapshot(numbers={found.subject: value})) is holds


def test_states_are_compared_by_name() -> None:
    assert parse("state = failed").holds(Snapshot("failed")) is True
    assert parse("state != ready").holds(Snapshot("ready")) is False
    assert parse("state = failed").holds(Snapshot()) is None
    assert parse("hung").holds(Snapshot(words=frozenset({"hung"}))) is True


def test_without_a_request_none_is_late() -> None:
    found = parse("ttft_p95 > 500ms")
    assert found.holds(Snapshot(empty=frozenset({"ttft_p95"}))) is False
