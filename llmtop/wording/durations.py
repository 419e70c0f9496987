"""Durations as a user types them."""

from __future__ import annotations

import math
import re

# Python also accepts digits of other scripts, and underscores between digits. Here they are
# refused, because a reader may not recognise them as numbers.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PART = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
WEEK = 7 * 86_400.0  # longer than any wait


def seconds_of(text: str) -> float | None:
    """Seconds of ``30``, ``500ms``, ``2s``, ``5m``, ``1h`` or ``1h30m``; None for anything else.

    >>> seconds_of("1h30m"), seconds_of("2"), seconds_of("2 weeks")
    (5400.0, 2.0, None)
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else None
    found, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        found += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return found if text and math.isfinite(found) else None


def shown(seconds: float) -> str:
    """Format a bound as a user may type it, such as ``5m``."""
    unit = next((u for u in ("d", "h", "m", "s") if seconds >= _UNITS[u]), "ms")
    return f"{seconds / _UNITS[unit]:g}{unit}" if seconds else "0"
