"""Types of flag values, stricter than those of click."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from llmtop import UsageError
from llmtop.wording.durations import WEEK, seconds_of, shown

SPAN = "SECONDS|2m"  # shown in the help


class Real(click.FloatRange):
    """A finite number in a range. click alone accepts NaN in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number; a usage error for NaN, infinity and other digits than 0 to 9."""
        if isinstance(value, str) and not value.isascii():
            self.fail(f"{value!r} is not a number with the digits 0 to 9", param, ctx)
        number = super().convert(value, param, ctx)
        if isinstance(number, float) and not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Span(click.ParamType):  # type: ignore[type-arg]  # generic since 8.2
    """A duration in seconds: ``30``, ``500ms``, ``2s``, ``5m``, ``1h`` or ``1h30m``.

    low, high: the allowed range, in seconds.
    """

    name = "duration"

    def __init__(self, low: float = 0.0, high: float = WEEK) -> None:
        self._low, self._high = low, high

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The placeholder of the value in the help."""
        return SPAN

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the duration; a usage error for an invalid one, or one out of range."""
        if isinstance(value, int | float):
            return float(value)
        seconds = seconds_of(str(value))
        if seconds is None:
            words = "is not a duration: write seconds, or 500ms, 2s, 5m, 1h"
            self.fail(f"{value!r} {words}", param, ctx)
        if not self._low <= seconds <= self._high:
            words = f"is not from {shown(self._low)} to {shown(self._high)}"
            self.fail(f"{value!r} {words}", param, ctx)
        return seconds


def check_digits(argument: str) -> None:
    """Raise UsageError for a number with other digits than 0 to 9, also after ``NAME=``.

    Words and paths may contain any characters.
    """
    value = argument.rpartition("=")[2]
    if value.isascii() or not any(c.isdigit() and not c.isascii() for c in value):
        return
    if all(c.isdigit() or not c.isalpha() for c in re.sub(r"(?:ms|[smhdkKMG])$", "", value)):
        raise UsageError(f"{value!r} is not a number", "numbers are written with the digits 0 to 9")


SECONDS = Span()
TIMEOUT = Span(low=0.001)
