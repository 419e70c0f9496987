"""An alert in words and as the JSON document that commands and webhooks get."""

from __future__ import annotations

from typing import Any

from llmtop.alerts.expression import NUMBERS, Range
from llmtop.alerts.rules import Alert
from llmtop.wording import format as f


def sentence(alert: Alert) -> str:
    """``llama: kv > 95% for 1m (now 97%)``, or that it has ended and how long it lasted."""
    name, condition = f.clean(alert.engine, 80), f.clean(alert.rule.when.text, 120)
    if not alert.begins:
        return f"{name}: over after {f.duration(alert.time - alert.since)}: {condition}"
    now = f" (now {value(alert)})" if alert.value is not None else ""
    return f"{name}: {condition}{now}"


def value(alert: Alert) -> str:
    """What was seen, as the screen writes it."""
    seen = alert.value
    if seen is None:
        return f.ABSENT
    low = _one(alert.rule.when.subject, seen.low)
    if seen.high is None:
        return f">{low}"
    high = _one(alert.rule.when.subject, seen.high)
    return low if low == high else f"{low}-{high}"


def document(alert: Alert) -> dict[str, Any]:
    """The body of a webhook. docs/reference/alerts.md describes the fields."""
    return {
        "rule": alert.rule.name,
        "engine": alert.engine,
        "status": "begins" if alert.begins else "ends",
        "when": alert.rule.when.text,
        "text": sentence(alert),
        "time": alert.time,
        "since": alert.since,
        "value": _range(alert.value),
    }


def _range(seen: Range | None) -> dict[str, float | None] | None:
    return None if seen is None else {"low": seen.low, "high": seen.high}


def _one(subject: str, number: float) -> str:
    unit = NUMBERS.get(subject, "")
    if unit == "s":
        return f.latency(number)
    return f.percent(number) if unit == "%" else f.rate(number)
