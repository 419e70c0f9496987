"""Parses and validates the rows of a ``steps`` answer.

It works by columns: 4,096 rows take about 10 ms, and a dashboard reads 200 rows a second.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmtop.engines.core.live_protocol import text_of
from llmtop.engines.core.steps import COLUMNS, COUNTS, NEEDED, Step
from llmtop.engines.introspection.answers import texts

MOST_ROWS = 4096
MOST_COLUMNS = 64
_LATEST = 1e11  # unix seconds
_LONGEST_S = 1e7
_MOST = float(1 << 53)

_FIELDS = tuple(name for name in COLUMNS if name not in ("seq", "end"))


class StepRows(NamedTuple):
    """A ``steps`` answer. boot: the id of the ring's run. next: the number of the next step."""

    steps: tuple[Step, ...]
    boot: str
    next: int
    lost: int
    missing: Mapping[str, str]


def step_rows(answer: Mapping[str, Any], since: int | None, rank: int) -> StepRows:
    """Parse an answer. Raises ValueError, TypeError or KeyError if it violates the protocol."""
    columns = [text_of(name) for name in answer["columns"][:MOST_COLUMNS]]
    number = _count(answer["rows"])
    if number > MOST_ROWS or not columns or len(set(columns)) < len(columns):
        raise ValueError("too many rows, or columns of one name")
    data = base64.b64decode(answer["data"], validate=True)
    if len(data) != number * len(columns) * 8:
        raise ValueError("another number of values")
    rows = struct.iter_unpack(f"<{len(columns)}d", data)
    table = dict(zip(columns, zip(*rows, strict=True), strict=True)) if number else {}
    return StepRows(
        _steps(table, number, -1 if since is None else since, rank) if number else (),
        text_of(answer["boot"]),
        _count(answer["next"]),
        _count(answer["lost"]),
        texts(answer.get("missing", {})),
    )


def _steps(
    table: Mapping[str, Sequence[float]], number: int, since: int, rank: int
) -> tuple[Step, ...]:
    numbers = _whole(table["seq"])
    if not all(earlier < later for earlier, later in zip((since, *numbers), numbers, strict=False)):
        raise ValueError("steps out of order")
    ends = table["end"]
    if not all(0.0 <= end <= _LATEST for end in ends):
        raise ValueError("an invalid time")
    unknown = (None,) * number
    read = [_column(name, table.get(name), unknown) for name in _FIELDS]
    ranks = (rank,) * number
    return tuple(map(Step, numbers, ends, *read, ranks))


def _column(name: str, values: Sequence[float] | None, unknown: Sequence[None]) -> Sequence[Any]:
    if values is None:
        if name in NEEDED:
            raise ValueError(f"no {name}")
        return unknown
    most = _MOST if name in COUNTS else _LONGEST_S
    known = [value for value in values if value == value]  # NaN: not known
    if known and not 0.0 <= min(known) <= max(known) <= most:
        raise ValueError(f"an impossible {name}")
    if len(known) == len(values):
        return list(map(int, values)) if name in COUNTS else values
    if name in NEEDED:
        raise ValueError(f"an unknown {name}")
    if name in COUNTS:
        return [None if value != value else int(value) for value in values]
    return [None if value != value else value for value in values]


def _whole(values: Sequence[float]) -> tuple[int, ...]:
    if not all(0.0 <= value <= _MOST for value in values):
        raise ValueError("not a sequence number")
    return tuple(int(value) for value in values)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError("not a count")
    return value
