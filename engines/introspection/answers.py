"""Parses and validates answers about latencies, requests and aborts.

Raises ValueError, TypeError, KeyError or AttributeError for an answer that violates the protocol;
``live_protocol.understood`` converts it into a LiveError.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from llmtop.engines.core.latencies import LatencyHistogram
from llmtop.engines.core.live_protocol import text_of
from llmtop.engines.core.requests import Aborted, RequestRow, RequestTable

ABILITIES = ("steps", "latencies", "requests", "abort")
MOST_ROWS = 50
_MOST_BUCKETS = 8192
_MOST_NAMES = 32
_MOST = 1 << 53
_LONGEST_S = 1e9


class About(NamedTuple):
    """The abilities of one socket. missing: what cannot be shown, with reasons."""

    abilities: frozenset[str]
    missing: Mapping[str, str]
    role: str


class RankLatencies(NamedTuple):
    """A ``latencies`` answer. boot: the id of the run, "" if not reported."""

    histograms: Mapping[str, LatencyHistogram]
    base: Mapping[str, str]
    boot: str
    missing: Mapping[str, str]


def about(answer: Mapping[str, Any]) -> About:
    """The part of ``get`` that protocol 2 added."""
    abilities = [text_of(name) for name in answer["abilities"][:_MOST_NAMES]]
    known = frozenset(name for name in abilities if name in ABILITIES)
    return About(known, texts(answer.get("missing", {})), text_of(answer["role"]))


def texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """An object of texts, bounded."""
    return {text_of(name): text_of(text) for name, text in list(fields.items())[:_MOST_NAMES]}


def latencies(answer: Mapping[str, Any]) -> RankLatencies:
    """The histograms of one process."""
    histograms = list(answer["histograms"].items())[:_MOST_NAMES]
    boot = answer.get("boot")
    return RankLatencies(
        {text_of(name): _histogram(found) for name, found in histograms},
        texts(answer.get("base", {})),
        "" if boot is None else text_of(boot),
        texts(answer.get("missing", {})),
    )


def _histogram(fields: Mapping[str, Any]) -> LatencyHistogram:
    pairs = fields["buckets"]
    if len(pairs) > _MOST_BUCKETS:
        raise ValueError("too many buckets")
    buckets = dict(pairs)  # ValueError for what is no pair
    total = _sum_of_counts(buckets.values())
    _sum_of_counts(buckets)
    if buckets and (max(buckets) > _MOST_BUCKETS or set(map(type, buckets)) != {int}):
        raise ValueError("no such bucket")
    if _count(fields["count"]) != total:
        raise ValueError("a count that is not that of the buckets")
    ends = (_seconds(fields.get("min_s")), _seconds(fields.get("max_s")))
    sum_s = _seconds(fields["sum_s"])
    if sum_s is None:
        raise ValueError("no sum")
    return LatencyHistogram(total, sum_s, *ends, buckets)


def requests(answer: Mapping[str, Any], rank: int) -> RequestTable:
    """The requests of one scheduler."""
    step = answer.get("step")
    looked = answer.get("waiting_looked_at")
    return RequestTable(
        time=_moment(answer["now"]),
        running=_count(answer["running"]),
        waiting=_count(answer["waiting"]),
        rows=tuple(_row(fields, rank) for fields in answer["requests"][:MOST_ROWS]),
        step=None if step is None else _count(step),
        missing=texts(answer.get("missing", {})),
        waiting_looked_at=None if looked is None else _count(looked),
    )


def _row(fields: Mapping[str, Any], rank: int) -> RequestRow:
    state, phase = fields["state"], fields.get("phase")
    if state not in ("running", "waiting", "preempted") or phase not in ("prefill", "decode", None):
        raise ValueError("no such state")
    counts = {
        name: _count_or_none(fields.get(name))
        for name in (
            "prompt_tokens",
            "cached_tokens",
            "generated_tokens",
            "max_tokens",
            "kv_blocks",
            "preemptions",
        )
    }
    priority = fields.get("priority")
    if priority is not None and (type(priority) is not int or abs(priority) > _MOST):
        raise ValueError("not a priority")
    return RequestRow(
        id=text_of(fields["id"]),
        rank=rank,
        state=state,
        phase=phase,
        age_s=_seconds(fields.get("age_s")),
        waited_s=_seconds(fields.get("waited_s")),
        ttft_s=_seconds(fields.get("ttft_s")),
        priority=priority,
        **counts,
    )


def aborted(answer: Mapping[str, Any]) -> Aborted:
    """The result of an abort in one process."""
    refused = [(text_of(one["id"]), text_of(one["reason"])) for one in answer["refused"][:256]]
    return Aborted(
        tuple(text_of(ident) for ident in answer["aborted"][:256]),
        tuple(text_of(ident) for ident in answer["ended_before"][:256]),
        tuple(refused),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError("not a count")
    return value


def _sum_of_counts(values: Collection[Any]) -> int:
    """``_count`` for many values at once: there are seven histograms of up to 900 buckets.

    A sum that contains a float is a float; a text raises an error.
    """
    total = sum(values)
    if type(total) is not int or not 0 <= total <= _MOST or (values and min(values) < 0):
        raise ValueError("not counts")
    return total


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _seconds(value: object) -> float | None:
    """None stays None. A negative value, after the clock was set back, is unknown."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a number of seconds")
    return float(value) if 0.0 <= value <= _LONGEST_S else None


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a moment")
    return float(value)
