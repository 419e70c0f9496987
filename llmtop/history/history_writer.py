"""Writes the history: a row a second for each engine, thinned rows, and a bound on the whole."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.analysis.thinning import Stretch, Thinner
from llmtop.engines.core.options import OptionValue
from llmtop.history import database
from llmtop.history.database import FAULTS, PAGE, trouble

FINE, TEN, MINUTE = 1, 10, 60
KEPT_S = {FINE: 2 * 3600.0, TEN: 12 * 3600.0, MINUTE: 24 * 3600.0}
MOST_BYTES = 200 * 2**20
MOST_EVENTS = 20_000
PRUNE_EVERY_S = 60.0
REDO_S = 120.0  # of the newest rows, thinned again after a start: a kill lost what was collected


class Identity(Struct, frozen=True):
    """Who an engine is in the history. Name and kind tell engines apart."""

    name: str
    kind: str
    title: str = ""
    url: str = ""
    model: str | None = None
    version: str | None = None
    simulated: bool = False
    owned: bool = False


class HistoryWriter:
    """The one writer. Not for several threads. Every failure is a HistoryError.

    Facts are in the file after ``commit``. most_bytes: of the whole file.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = folder / database.FILE
        self._db = database.open_for_writing(folder)
        self._most = most_bytes
        self._places: dict[str, int] = {}
        self._engines: dict[tuple[str, str], tuple[int, Identity]] = {}
        self._thinners: dict[tuple[int, int, str], Thinner] = {}
        self._stretches: dict[tuple[int, int], float] = {}
        self._pruned = -math.inf
        try:
            rows = self._db.execute("SELECT name, id FROM series").fetchall()
            self._places = {str(name): int(place) - 1 for name, place in rows}
            self._db.execute("BEGIN")
            self._thin_again()
        except FAULTS as error:
            self._db.close()
            raise trouble(self._path, error) from error

    def add(self, who: Identity, time: float, values: Mapping[str, float | None]) -> None:
        """A row of an engine's charts; one at the same moment is replaced."""
        with self._guard():
            engine = self._engine(who, time)
            self._row(engine, FINE, time, self._pack(values))
            self._thin(engine, time, values)

    def mark(self, who: Identity, mark: Mark) -> None:
        """A change of an engine or its load."""
        with self._guard():
            values = (self._engine(who, mark.time), mark.time, mark.label, mark.effect, mark.load)
            query = "INSERT OR IGNORE INTO marks VALUES (?, ?, ?, ?, ?, ?)"
            self._db.execute(query, (*values, mark.since))

    def event(self, event: Event) -> None:
        """A line of the event list."""
        with self._guard():
            parts = msgspec.json.encode(event.parts).decode() if event.parts else None
            values = (event.time, event.text, event.level, parts)
            self._db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", values)

    def option(self, who: Identity, time: float, name: str, value: OptionValue) -> None:
        """A value that an option took."""
        with self._guard():
            text = msgspec.json.encode(value).decode()
            values = (self._engine(who, time), time, name, text)
            self._db.execute("INSERT OR IGNORE INTO options VALUES (?, ?, ?, ?)", values)

    def commit(self, now: float) -> None:
        """Put what was added into the file; now and then forget what is old."""
        with self._guard():
            self._db.execute("COMMIT")
            if not 0 <= now - self._pruned < PRUNE_EVERY_S:
                self._pruned = now
                self._prune(now)
            self._db.execute("BEGIN")

    def close(self) -> None:
        """Write what is left and close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("COMMIT")
        self._db.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise trouble(self._path, error) from error

    def _engine(self, who: Identity, time: float) -> int:
        known = self._engines.get((who.name, who.kind))
        if known is not None and known[1] == who:
            return known[0]
        self._db.execute(
            "INSERT INTO engines (name, kind, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (who.name, who.kind, time),
        )
        self._db.execute(
            "UPDATE engines SET title = ?, url = ?, model = ?, version = ?, simulated = ?, "
            "owned = ?, last = ? WHERE name = ? AND kind = ?",
            (who.title, who.url, who.model, who.version, who.simulated, who.owned, time,
             who.name, who.kind),
        )  # fmt: skip
        query = "SELECT id FROM engines WHERE name = ? AND kind = ?"
        engine = int(self._db.execute(query, (who.name, who.kind)).fetchone()[0])
        self._engines[who.name, who.kind] = engine, who
        return engine

    def _place(self, name: str) -> int:
        place = self._places.get(name)
        if place is None:
            place = len(self._places)
            self._db.execute("INSERT INTO series VALUES (?, ?)", (place + 1, name))
            self._places[name] = place
        return place

    def _pack(self, values: Mapping[str, float | None]) -> bytes:
        places = {self._place(name): value for name, value in values.items()}
        row = array("d", [math.nan]) * (max(places, default=-1) + 1)
        for place, value in places.items():
            row[place] = math.nan if value is None else value
        return row.tobytes()

    def _thin(self, engine: int, time: float, values: Mapping[str, float | None]) -> None:
        for tier in (TEN, MINUTE):
            began = time // tier * tier
            before = self._stretches.get((engine, tier))
            if before is not None and began != before:
                self._end_stretch(engine, tier, before)
            self._stretches[engine, tier] = began
            for name, value in values.items():
                thinner = self._thinners.get((engine, tier, name))
                if thinner is None:
                    thinner = self._thinners[engine, tier, name] = Thinner(tier)
                thinner.add(time, value)

    def _end_stretch(self, engine: int, tier: int, began: float) -> None:
        found: dict[int, Stretch] = {}
        for name in self._places:
            thinner = self._thinners.get((engine, tier, name))
            stretch = thinner.take() if thinner is not None else None
            if stretch is not None and stretch.n:
                found[self._place(name)] = stretch
        row = array("d", [math.nan]) * (3 * (max(found, default=-1) + 1))
        for place, one in found.items():
            row[3 * place : 3 * place + 3] = array("d", (one.low, one.mean, one.high))
        self._row(engine, tier, began, row.tobytes())

    def _row(self, engine: int, tier: int, time: float, row: bytes) -> None:
        query = "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)"
        self._db.execute(query, (engine, tier, time, row))

    def _thin_again(self) -> None:
        """Collect once more what the process before had not yet written thinned."""
        names = {place: name for name, place in self._places.items()}
        newest = self._db.execute("SELECT engine, max(time) FROM points WHERE tier = 1 GROUP BY 1")
        for engine, last in newest.fetchall():
            since = (last - REDO_S) // MINUTE * MINUTE
            query = "SELECT time, row FROM points WHERE engine = ? AND tier = 1 AND time >= ?"
            for time, packed in self._db.execute(query, (engine, since)).fetchall():
                row = array("d", packed)
                values = {
                    names[place]: None if math.isnan(value) else value
                    for place, value in enumerate(row)
                    if place in names
                }
                self._thin(engine, time, values)

    def _prune(self, now: float) -> None:
        for tier, kept in KEPT_S.items():
            self._forget("points", f"tier = {tier} AND time < ?", now - kept)
        for table in ("marks", "events", "options"):
            self._forget(table, "time < ?", now - KEPT_S[MINUTE])
        query = "SELECT time FROM events ORDER BY time DESC LIMIT 1 OFFSET ?"
        oldest = self._db.execute(query, (MOST_EVENTS,)).fetchone()
        if oldest is not None:
            self._forget("events", "time <= ?", oldest[0])
        self._bound()
        self._db.execute("PRAGMA incremental_vacuum(256)")
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _bound(self) -> None:
        """Above the bound the oldest tenth goes: first rows a second, then thinned ones."""
        for tier in KEPT_S:
            while self._used() > self._most:
                query = "SELECT min(time), max(time) FROM points WHERE tier = ?"
                first, last = self._db.execute(query, (tier,)).fetchone()
                if first is None or last <= first:
                    break
                before = first + (last - first) / 10
                self._forget("points", f"tier = {tier} AND time < ?", before)

    def _used(self) -> int:
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * PAGE

    def _forget(self, table: str, where: str, before: float) -> None:
        self._db.execute(f"DELETE FROM {table} WHERE {where}", (before,))
