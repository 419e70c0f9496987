"""How a recording stores scheduler steps: columns of small whole numbers, which compress well.

Measured on the steps of an H200: 13 bytes a step, 22 without this encoding
(``bench.history.step_bytes``). docs/reference/recording.md describes the encoding. ``unpacked``
checks its input, because a file is untrusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from llmtop.history.facts import StepsFact
from llmtop.values import replace

CODED = 1  # the version of the encoding
LARGEST = 1e15  # absolute values must not be above it
Column = Sequence[float | None]
_END, _END_S = "end", 1e-5  # the column of the ends of steps, and its unit in seconds
_S = 1e-6  # the unit of every other column of seconds, in seconds
_CHANGES = ("context_tokens", "kv_free_blocks")  # stored as differences from step to step


def packed(fact: StepsFact) -> StepsFact:
    """The fact with encoded columns. A fact with an unknown end of a step is returned unchanged."""
    ends = fact.columns.get(_END, ())
    if fact.coded or not ends or None in ends:
        return fact
    columns = {name: _in_units(name, column) for name, column in fact.columns.items()}
    expected = _expected(columns, len(ends))
    kept: dict[str, tuple[float | None, ...]] = {}
    same: dict[str, float | None] = {}
    for name, column in columns.items():
        if name == _END:
            changes = [b - a for a, b in pairwise(_known(column))]
            errors = [a - b for a, b in zip(changes, expected[1:], strict=True)]
            kept[name] = (column[0], *errors)
        elif all(value == column[0] for value in column):
            same[name] = column[0]
        elif name in _CHANGES and None not in column:
            kept[name] = (column[0], *(b - a for a, b in pairwise(_known(column))))
        else:
            kept[name] = tuple(column)
    return replace(fact, columns=kept, same=same, coded=CODED)


def unpacked(fact: StepsFact) -> StepsFact:
    """The fact with decoded columns. Raises ValueError or OverflowError for impossible values."""
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
        found[name] = tuple(None if value is None else _from_units(name, value) for value in column)
    return replace(fact, columns=found, same={}, coded=0)


def _expected(columns: Mapping[str, Column], rows: int) -> list[float]:
    """The expected distance of each step's end from the previous one, in units of ``end``: its
    duration plus its idle time."""
    nothing: Column = (0,) * rows
    pairs = zip(columns.get("duration_s", nothing), columns.get("idle_s", nothing), strict=True)
    return [round(((long or 0) + (idle or 0)) * _S / _END_S) for long, idle in pairs]


def _summed(column: Column, more: Sequence[float]) -> Column:
    found: list[float] = []
    for row, value in enumerate(_known(column)):
        found.append(value if not row else found[-1] + value + more[row])
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


def _from_units(name: str, value: float) -> float:
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError("an impossible number")
    unit = _unit(name)
    return round(value * unit, 6) if unit else value
