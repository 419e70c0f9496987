"""Scheduler steps as a recording stores them: columns of small whole numbers, which compress well.

Measured on an H200's steps: 13 bytes a step, 22 as they are. docs/reference/recording.md has the
rules. ``unpacked`` does not believe what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from llmtop.history.facts import StepsFact
from llmtop.values import replace

CODED = 1
LARGEST = 1e15
Column = Sequence[float | None]
_END, _END_S = "end", 1e-5  # what one unit of the column is
_S = 1e-6  # of each column of seconds
_CHANGES = ("context_tokens", "kv_free_blocks")  # stored as changes from step to step


def packed(fact: StepsFact) -> StepsFact:
    """The fact as it is stored. One that cannot be stored so stays as it is."""
    ends = fact.columns.get(_END, ())
    if fact.coded or not ends or None in ends:
        return fact
    columns = {name: _in_units(name, column) for name, column in fact.columns.items()}
    expected = _expected(columns, len(ends))
    kept: dict[str, tuple[float | None, ...]] = {}
    same: dict[str, float | None] = {}
    for name, column in columns.items():
        if name == _END:
            moved = [b - a for a, b in pairwise(_known(column))]
            left = [a - b for a, b in zip(moved, expected[1:], strict=True)]
            kept[name] = (column[0], *left)
        elif all(value == column[0] for value in column):
            same[name] = column[0]
        elif name in _CHANGES and None not in column:
            kept[name] = (column[0], *(b - a for a, b in pairwise(_known(column))))
        else:
            kept[name] = tuple(column)
    return replace(fact, columns=kept, same=same, coded=CODED)


def unpacked(fact: StepsFact) -> StepsFact:
    """The fact as it was. ValueError or OverflowError for one that cannot have been."""
    if not fact.coded:
        return fact
    ends = fact.columns.get(_END, ())
    if None in ends:
        raise ValueError("a step without an end")
    rows = len(ends)
    columns: dict[str, Column] = {name: (value,) * rows for name, value in fact.same.items()}
    columns.update(fact.columns)
    expected = _expected(columns, rows)
    found: dict[str, tuple[float | None, ...]] = {}
    for name, column in columns.items():
        if name == _END:
            column = _summed(column, expected)
        elif name in _CHANGES and name in fact.columns and None not in column:
            column = _summed(column, [0.0] * rows)
        found[name] = tuple(None if value is None else _out_of(name, value) for value in column)
    return replace(fact, columns=found, same={}, coded=0)


def _expected(columns: Mapping[str, Column], rows: int) -> list[float]:
    """How far each end lies behind the one before, by duration and idle time, in its units."""
    nothing: Column = (0,) * rows
    pairs = zip(columns.get("duration_s", nothing), columns.get("idle_s", nothing), strict=True)
    return [round(((long or 0) + (idle or 0)) * _S / _END_S) for long, idle in pairs]


def _summed(column: Column, more: Sequence[float]) -> Column:
    found: list[float] = []
    for place, value in enumerate(_known(column)):
        found.append(value if not place else found[-1] + value + more[place])
    return found


def _known(column: Column) -> list[float]:
    return [value for value in column if value is not None]


def _unit(name: str) -> float:
    if name == _END:
        return _END_S
    return _S if name.endswith("_s") else 0.0


def _in_units(name: str, column: Column) -> Column:
    unit = _unit(name)
    return [value if value is None or not unit else round(value / unit) for value in column]


def _out_of(name: str, value: float) -> float:
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError("an impossible number")
    unit = _unit(name)
    return round(value * unit, 6) if unit else value
