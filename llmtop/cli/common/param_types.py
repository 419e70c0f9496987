"""Kinds of values that flags take, where click's own would let too much through."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from llmtop import UsageError
from llmtop.wording.durations import WEEK, seconds_of, shown

SPAN = "SECONDS|2m"  # how help shows it


class Real(click.FloatRange):
    """A finite number in a range. NaN is in every range as click compares it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number; a usage error for NaN, infinity, and what is not written with 0 to 9."""
        if isinstance(value, str) and not value.isascii():
            self.fail(f"{value!r} is not a number: it is written with 0 to 9", param, ctx)
        number = super().convert(value, param, ctx)
        if isinstance(number, float) and not math.isfinite(number):
            self.fail(f"{value} is not a number to work with", param, ctx)
        return number


class Span(click.ParamType):  # type: ignore[type-arg]  # generic since 8.2
    """A length of time, in seconds: ``30``, ``500ms``, ``2s``, ``5m``, ``1h`` or ``1h30m``.

    low, high: seconds.
    """

    name = "duration"

    def __init__(self, low: float = 0.0, high: float = WEEK) -> None:
        self._low, self._high = low, high

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What help shows for the value."""
        return SPAN

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it; a usage error for what is none, or out of range."""
        if isinstance(value, int | float):
            return float(value)
        seconds = seconds_of(str(value))
        if seconds is None:
            words = "is not a length of time: write seconds, or 500ms, 2s, 5m, 1h"
            self.fail(f"{value!r} {words}", param, ctx)
        if not self._low <= seconds <= self._high:
            words = f"is not from {shown(self._low)} to {shown(self._high)}"
            self.fail(f"{value!r} {words}", param, ctx)
        return seconds


def check_digits(argument: str) -> None:
    """UsageError for a number that is written with other digits than 0 to 9.

    Also behind a name and ``=``. Words and paths may hold any characters.
    """
    value = argument.rpartition("=")[2]
    if value.isascii() or not any(c.isdigit() and not c.isascii() for c in value):
        return
    if all(c.isdigit() or not c.isalpha() for c in re.sub(r"(?:ms|[smhdkKMG])$", "", value)):
        raise UsageError(f"{value!r} is not a number", "numbers are written with the digits 0 to 9")


SECONDS = Span()
TIMEOUT = Span(low=0.001)
