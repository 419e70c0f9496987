"""An alert as text, and as the JSON document that commands and webhooks get."""

from __future__ import annotations

from typing import Any

from llmtop.alerts.expression import NUMBERS, Range
from llmtop.alerts.rules import Alert
from llmtop.wording import format as f


def sentence(alert: Alert) -> str:
    """The begin of an alert, ``llama: kv > 95% for 1m (now 97%)``, or its end with its duration."""
    name, condition = f.clean(alert.engine, 80), f.clean(alert.rule.when.text, 120)
    if not alert.begins:
        return f"{name}: over after {f.duration(alert.time - alert.since)}: {condition}"
    now = f" (now {value(alert)})" if alert.value is not None else ""
    return f"{name}: {condition}{now}"


def value(alert: Alert) -> str:
    """The measured value of an alert in the format of the screen; ``--`` if it is not known."""
    measured = alert.value
    if measured is None:
        return f.ABSENT
    low = _formatted(alert.rule.when.subject, measured.low)
    if measured.high is None:
        return f">{low}"
    high = _formatted(alert.rule.when.subject, measured.high)
    return low if low == high else f"{low}-{high}"


def document(alert: Alert) -> dict[str, Any]:
    """The JSON document of an alert. docs/reference/alerts.md describes its fields."""
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


def _range(value: Range | None) -> dict[str, float | None] | None:
    return None if value is None else {"low": value.low, "high": value.high}


def _formatted(subject: str, number: float) -> str:
    unit = NUMBERS.get(subject, "")
    if unit == "s":
        return f.latency(number)
    return f.percent(number) if unit == "%" else f.rate(number)
