"""One iteration of TensorRT-LLM as JSON has it: parts and numbers that may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def part(record: Record, name: str) -> Record:
    """An object inside; an empty one where it is missing, or something else."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def number(record: Record, name: str) -> float | None:
    """A number that can be a statistic; None where it is missing, or something else."""
    value = record.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < 2**53 else None
