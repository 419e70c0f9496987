"""Writes the history: one row a second for each engine, downsampled rows, and a size limit."""

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
from llmtop.history.database import FAULTS, PAGE, history_error

FINE, TEN, MINUTE = 1, 10, 60  # the tiers: seconds of one row
KEPT_S = {FINE: 2 * 3600.0, TEN: 12 * 3600.0, MINUTE: 24 * 3600.0}  # age at which rows are deleted
MOST_BYTES = 200 * 2**20
MOST_EVENTS = 20_000
PRUNE_EVERY_S = 60.0
# After a start, this many seconds of the newest rows are downsampled again. A killed process loses
# the intervals that it had not finished.
REDO_S = 120.0


class Identity(Struct, frozen=True):
    """The identity of an engine in the history. Name and kind together are its key."""

    name: str
    kind: str
    title: str = ""
    url: str = ""
    model: str | None = None
    version: str | None = None
    simulated: bool = False
    owned: bool = False


class HistoryWriter:
    """The single writer of the history in ``folder``. Not thread-safe.

    Every method raises HistoryError when it fails. Data is in the file only after ``commit``.
    most_bytes: the size limit of the file.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = folder / database.FILE
        self._db = database.open_for_writing(folder)
        self._most = most_bytes
        self._columns: dict[str, int] = {}  # position in a row, by series name
        self._engines: dict[tuple[str, str], tuple[int, Identity]] = {}
        self._thinners: dict[tuple[int, int, str], Thinner] = {}
        self._intervals: dict[tuple[int, int], float] = {}  # start, by engine and tier
        self._pruned = -math.inf
        try:
            rows = self._db.execute("SELECT name, id FROM series").fetchall()
            self._columns = {str(name): int(series) - 1 for name, series in rows}
            self._db.execute("BEGIN")
            self._redo_downsampling()
        except FAULTS as error:
            self._db.close()
            raise history_error(self._path, error) from error

    def add(self, who: Identity, time: float, values: Mapping[str, float | None]) -> None:
        """Add one row of an engine's charts: values by series name, None for unknown.

        time: unix seconds. A row with the same time is replaced.
        """
        with self._guard():
            engine = self._engine(who, time)
            self._row(engine, FINE, time, self._pack(values))
            self._downsample(engine, time, values)

    def mark(self, who: Identity, mark: Mark) -> None:
        """Add a change of an engine or its load."""
        with self._guard():
            values = (self._engine(who, mark.time), mark.time, mark.label, mark.effect, mark.load)
            query = "INSERT OR IGNORE INTO marks VALUES (?, ?, ?, ?, ?, ?)"
            self._db.execute(query, (*values, mark.since))

    def event(self, event: Event) -> None:
        """Add a line of the event list."""
        with self._guard():
            parts = msgspec.json.encode(event.parts).decode() if event.parts else None
            values = (event.time, event.text, event.level, parts)
            self._db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", values)

    def option(self, who: Identity, time: float, name: str, value: OptionValue) -> None:
        """Add a value that the option ``name`` got at ``time`` (unix seconds)."""
        with self._guard():
            text = msgspec.json.encode(value).decode()
            values = (self._engine(who, time), time, name, text)
            self._db.execute("INSERT OR IGNORE INTO options VALUES (?, ?, ?, ?)", values)

    def commit(self, now: float) -> None:
        """Write the added data to the file. Once in ``PRUNE_EVERY_S``, delete what is too old.

        now: unix seconds.
        """
        with self._guard():
            self._db.execute("COMMIT")
            if not 0 <= now - self._pruned < PRUNE_EVERY_S:
                self._pruned = now
                self._prune(now)
            self._db.execute("BEGIN")

    def close(self) -> None:
        """Commit and close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("COMMIT")
        self._db.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise history_error(self._path, error) from error

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

    def _column(self, name: str) -> int:
        column = self._columns.get(name)
        if column is None:
            column = len(self._columns)
            self._db.execute("INSERT INTO series VALUES (?, ?)", (column + 1, name))
            self._columns[name] = column
        return column

    def _pack(self, values: Mapping[str, float | None]) -> bytes:
        by_column = {self._column(name): value for name, value in values.items()}
        row = array("d", [math.nan]) * (max(by_column, default=-1) + 1)
        for column, value in by_column.items():
            row[column] = math.nan if value is None else value
        return row.tobytes()

    def _downsample(self, engine: int, time: float, values: Mapping[str, float | None]) -> None:
        for tier in (TEN, MINUTE):
            began = time // tier * tier
            before = self._intervals.get((engine, tier))
            if before is not None and began != before:
                self._end_interval(engine, tier, before)
            self._intervals[engine, tier] = began
            for name, value in values.items():
                thinner = self._thinners.get((engine, tier, name))
                if thinner is None:
                    thinner = self._thinners[engine, tier, name] = Thinner(tier)
                thinner.add(time, value)

    def _end_interval(self, engine: int, tier: int, began: float) -> None:
        found: dict[int, Stretch] = {}
        for name in self._columns:
            thinner = self._thinners.get((engine, tier, name))
            summary = thinner.take() if thinner is not None else None
            if summary is not None and summary.n:
                found[self._column(name)] = summary
        row = array("d", [math.nan]) * (3 * (max(found, default=-1) + 1))
        for column, one in found.items():
            row[3 * column : 3 * column + 3] = array("d", (one.low, one.mean, one.high))
        self._row(engine, tier, began, row.tobytes())

    def _row(self, engine: int, tier: int, time: float, row: bytes) -> None:
        query = "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)"
        self._db.execute(query, (engine, tier, time, row))

    def _redo_downsampling(self) -> None:
        """Downsample again the newest rows, whose intervals the previous process did not finish."""
        names = {column: name for name, column in self._columns.items()}
        newest = self._db.execute("SELECT engine, max(time) FROM points WHERE tier = 1 GROUP BY 1")
        for engine, last in newest.fetchall():
            since = (last - REDO_S) // MINUTE * MINUTE
            query = "SELECT time, row FROM points WHERE engine = ? AND tier = 1 AND time >= ?"
            for time, packed in self._db.execute(query, (engine, since)).fetchall():
                row = array("d", packed)
                values = {
                    names[column]: None if math.isnan(value) else value
                    for column, value in enumerate(row)
                    if column in names
                }
                self._downsample(engine, time, values)

    def _prune(self, now: float) -> None:
        for tier, kept in KEPT_S.items():
            self._delete("points", f"tier = {tier} AND time < ?", now - kept)
        for table in ("marks", "events", "options"):
            self._delete(table, "time < ?", now - KEPT_S[MINUTE])
        query = "SELECT time FROM events ORDER BY time DESC LIMIT 1 OFFSET ?"
        oldest = self._db.execute(query, (MOST_EVENTS,)).fetchone()
        if oldest is not None:
            self._delete("events", "time <= ?", oldest[0])
        self._limit_size()
        self._db.execute("PRAGMA incremental_vacuum(256)")
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _limit_size(self) -> None:
        """While the file is too large, delete the oldest tenth of a tier, the finest tier first."""
        for tier in KEPT_S:
            while self._used() > self._most:
                query = "SELECT min(time), max(time) FROM points WHERE tier = ?"
                first, last = self._db.execute(query, (tier,)).fetchone()
                if first is None or last <= first:
                    break
                before = first + (last - first) / 10
                self._delete("points", f"tier = {tier} AND time < ?", before)

    def _used(self) -> int:
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * PAGE

    def _delete(self, table: str, where: str, before: float) -> None:
        self._db.execute(f"DELETE FROM {table} WHERE {where}", (before,))
