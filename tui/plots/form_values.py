"""The text of a form field, parsed as a number or as lengths in tokens."""

from __future__ import annotations

import math

from llmtop import UsageError
from llmtop.loadgen.workload.lengths import Lengths, parse_lengths
from llmtop.tui.plots.form import Form
from llmtop.wording.durations import WEEK, seconds_of, shown

UNLIMITED = "no limit"
MOST_STREAMS, MOST_SECONDS = 20_000, 3600.0


def number(form: Form, name: str, low: float, high: float) -> float:
    """The number in a field; UsageError if it is not one from ``low`` to ``high``."""
    text = form[name].replace(",", "").replace("_", "").removesuffix("s")
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        text = form[name] or "nothing"
        raise UsageError(f"{name}: {text!r} is not a number from {low:g} to {high:,g}")
    return value


def time_limit(form: Form, name: str, low: float) -> float | None:
    """A length of time of the form, in seconds, None where there is no limit; UsageError when it
    is none, or out of range."""
    text = form[name]
    if text in ("", "none", UNLIMITED):
        return None
    seconds = seconds_of(text)
    if seconds is None or not low <= seconds <= WEEK:
        raise UsageError(f"{name}: {text!r} is not {shown(low)} to {shown(WEEK)}, or {UNLIMITED}")
    return seconds


def length(form: Form, name: str) -> Lengths:
    """The lengths in a field, in tokens; UsageError if it cannot be parsed."""
    return parse_lengths(form[name])
