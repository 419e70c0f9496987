"""Kinds of values that flags take, where click's own would let too much through."""

from __future__ import annotations

import math
from typing import Any

import click


class Real(click.FloatRange):
    """A finite number in a range. NaN is in every range as click compares it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number; a usage error for NaN and infinity."""
        number = super().convert(value, param, ctx)
        if isinstance(number, float) and not math.isfinite(number):
            self.fail(f"{value} is not a number to work with", param, ctx)
        return number


SECONDS = Real(min=0.0, max=7 * 86_400.0)  # a week is longer than anything that is waited for
TIMEOUT = Real(min=0.001, max=7 * 86_400.0)
