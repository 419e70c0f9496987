"""Reads the history: the values of an engine's charts from before this screen opened."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.history import database
from llmtop.history.database import FAULTS, history_error
from llmtop.history.history_writer import FINE, KEPT_S, MINUTE, TEN
from llmtop.printable import printable

MOST_MARKS, MOST_EVENTS = 50, 200
TEXT_CHARS = 1000
_LARGEST = 1e15  # a larger absolute value in a chart is read as unknown


class Column(NamedTuple):
    """One series: times in unix seconds and values, of equal length; NaN is unknown."""

    times: array[float]
    values: array[float]


class Thinned(NamedTuple):
    """One downsampled series: the starts of its intervals in unix seconds, and the lowest, mean and
    highest value in each. All four have the same length."""

    times: array[float]
    low: array[float]
    mean: array[float]
    high: array[float]


class Past(Struct, frozen=True):
    """The stored charts and marks of one engine.

    fine: one value a second, by series name. thinned: the downsampled series by the length of
    their intervals in seconds (10 and 60), then by series name.
    """

    fine: Mapping[str, Column] = {}
    thinned: Mapping[int, Mapping[str, Thinned]] = {}
    marks: tuple[Mark, ...] = ()


class HistoryReader:
    """Reads the history in ``folder``. Usable in ``with``. Every method raises HistoryError when it
    fails. Without a history file, the answers are empty."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / database.FILE
        self._db = database.open_for_reading(folder)

    def __enter__(self) -> HistoryReader:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._db is not None:
            self._db.close()

    def past(self, name: str, kind: str, until: float, fine_s: float) -> Past:
        """The charts and marks of the engine ``name`` of this ``kind`` before ``until``.

        until: unix seconds. fine_s: how many seconds to read at one value a second. The downsampled
        series reach back as far as they are kept (``KEPT_S``).
        """
        if self._db is None:
            return Past()
        try:
            found = self._db.execute(
                "SELECT id FROM engines WHERE name = ? AND kind = ?", (name, kind)
            ).fetchone()
            if found is None:
                return Past()
            engine = int(found[0])
            names = [str(one[0]) for one in self._db.execute("SELECT name FROM series ORDER BY id")]
            fine = _columns(self._rows(engine, FINE, until - fine_s, until), names, 1)
            return Past(
                {name: Column(times, parts[0]) for name, (times, parts) in fine.items()},
                {
                    tier: {
                        name: Thinned(times, *parts)
                        for name, (times, parts) in _columns(
                            self._rows(engine, tier, until - KEPT_S[tier], until), names, 3
                        ).items()
                    }
                    for tier in (TEN, MINUTE)
                },
                self._marks(engine, until),
            )
        except FAULTS as error:
            raise history_error(self._path, error) from error

    def events(self, until: float) -> list[Event]:
        """The newest events before ``until`` (unix seconds), oldest first, ``MOST_EVENTS`` of them
        at most."""
        if self._db is None:
            return []
        query = "SELECT time, level, text, parts FROM events WHERE time < ? ORDER BY time DESC "
        try:
            rows = self._db.execute(query + "LIMIT ?", (until, MOST_EVENTS)).fetchall()
            return [
                Event(float(time), _text(level), _text(text), _parts(parts))
                for time, level, text, parts in reversed(rows)
            ]
        except FAULTS as error:
            raise history_error(self._path, error) from error

    def _marks(self, engine: int, until: float) -> tuple[Mark, ...]:
        assert self._db is not None
        query = "SELECT time, label, effect, since, load FROM marks WHERE engine = ? AND time < ?"
        rows = self._db.execute(f"{query} ORDER BY time DESC LIMIT ?", (engine, until, MOST_MARKS))
        return tuple(
            Mark(
                float(time),
                _text(label),
                bool(effect),
                None if since is None else float(since),
                bool(load),
            )
            for time, label, effect, since, load in reversed(rows.fetchall())
        )

    def _rows(
        self, engine: int, tier: int, since: float, until: float
    ) -> list[tuple[float, bytes]]:
        assert self._db is not None
        query = (
            "SELECT time, row FROM points WHERE engine = ? AND tier = ? AND time >= ? AND time < ? "
            "ORDER BY time"
        )
        return self._db.execute(query, (engine, tier, since, until)).fetchall()


def _columns(
    rows: list[tuple[float, bytes]], names: list[str], parts: int
) -> dict[str, tuple[array[float], list[array[float]]]]:
    """Convert rows of packed floats to times and columns, by series name.

    parts: values of a series in a row. A series without any value is left out.
    """
    width = parts * len(names)
    empty = array("d", [math.nan]) * width
    whole = array("d")
    for _, row in rows:
        got = array("d", row[: len(row) // 8 * 8])[:width]
        whole += got
        if len(got) < width:
            whole += empty[len(got) :]
    times = array("d", [time for time, _ in rows])
    found = {}
    for position, name in enumerate(names):
        columns = [whole[parts * position + part :: width] for part in range(parts)]
        if all(math.isnan(value) for value in columns[0]):
            continue
        found[printable(name)] = times[:], [_bounded(one) for one in columns]
    return found


def _bounded(column: array[float]) -> array[float]:
    """The column with NaN in place of values that are too large."""
    if all(not abs(value) > _LARGEST for value in column):
        return column
    return array("d", (value if abs(value) <= _LARGEST else math.nan for value in column))


def _text(text: object) -> str:
    return printable(str(text), TEXT_CHARS)


def _parts(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        return ()
    try:
        return tuple(map(_text, msgspec.json.decode(text, type=tuple[str, ...])))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
