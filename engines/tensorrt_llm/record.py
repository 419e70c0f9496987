"""Reads objects and numbers that may be missing in the JSON record of one iteration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def part(record: Record, name: str) -> Record:
    """The nested object ``name``; an empty one if it is missing or not an object."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def number(record: Record, name: str) -> float | None:
    """The number ``name``; None if it is missing, not finite, negative or above 2^53."""
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < 2**53 else None
