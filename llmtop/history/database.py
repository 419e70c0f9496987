"""The history file: its schema, its version, and how it is opened.

It is a SQLite database in WAL mode with one writer and many readers: ``history.db`` in the folder
``history`` of the state directory, mode 0600. Schema version 1 (the pragma ``user_version``) has
these tables. Times are unix seconds:

- ``engines``: one row for each pair of engine name and kind.
- ``series``: the names of the chart series. ``id`` - 1 is the column of the series in ``points``.
- ``points``: ``tier`` is the interval of a row in seconds. A row of tier 1 has one 64-bit float for
  each series, NaN for unknown. A row of tier 10 or 60 has three: lowest, mean and highest value.
- ``marks``: changes of an engine or its load. ``events``: the lines of the event list.
- ``options``: each value that an option had, as JSON.

Scheduler steps and GPUs are not stored (docs/guide/recordings.md).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.host.ownership import is_trusted
from llmtop.engines.host.private_files import make_private

VERSION = 1
APPLICATION = 0x6C6C6D74  # "llmt": the application id, by which file(1) and readers identify it
FILE = "history.db"
PAGE = 4096
FAULTS = (sqlite3.Error, TypeError, ValueError)  # the errors that reading a damaged file can raise
_TABLES = """
CREATE TABLE engines (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, title TEXT, url TEXT, model TEXT,
  version TEXT, simulated INTEGER, owned INTEGER, first REAL, last REAL, UNIQUE (name, kind));
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE points (
  engine INTEGER NOT NULL, tier INTEGER NOT NULL, time REAL NOT NULL, row BLOB NOT NULL,
  PRIMARY KEY (engine, tier, time)) WITHOUT ROWID;
CREATE TABLE marks (
  engine INTEGER NOT NULL, time REAL NOT NULL, label TEXT NOT NULL, effect INTEGER, load INTEGER,
  since REAL, PRIMARY KEY (engine, time, label)) WITHOUT ROWID;
CREATE TABLE events (
  time REAL NOT NULL, text TEXT NOT NULL, level TEXT NOT NULL, parts TEXT,
  PRIMARY KEY (time, text)) WITHOUT ROWID;
CREATE TABLE options (
  engine INTEGER NOT NULL, time REAL NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (engine, time, name)) WITHOUT ROWID;
"""


# Parts of SQLite's messages about a file whose tables are not those of the schema.
_DAMAGED = ("malformed", "no such table", "no such column", "Could not decode to UTF-8")


class HistoryError(LlmtopError):
    """The history cannot be used. llmtop continues without it."""


class DamagedHistory(HistoryError):
    """The file is not a history, or it is damaged."""


class NewerHistory(HistoryError):
    """A newer llmtop wrote the file, in a later schema version."""


def open_for_writing(folder: Path) -> sqlite3.Connection:
    """The connection of the single writer. Creates the folder and the file.

    Raises HistoryError where they cannot be created or the file cannot be used.
    """
    path = folder / FILE
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not make_private(folder):
            raise HistoryError(f"{folder} is not a private folder of this user")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))  # SQLite would create it readable for all users
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        found = sqlite3.connect(path, timeout=2.0, isolation_level=None)
        try:
            _prepare(found, path)
        except BaseException:
            found.close()
            raise
    except FAULTS as error:
        raise history_error(path, error) from error
    return found


def open_for_reading(folder: Path) -> sqlite3.Connection | None:
    """The connection of a reader; None where no history exists yet.

    Raises HistoryError where the file belongs to another user, cannot be read or is damaged.
    """
    path = folder / FILE
    try:
        if not is_trusted(path.lstat().st_uid) or path.is_symlink():
            raise HistoryError(f"{path} belongs to another user")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HistoryError(f"the history cannot be read: {error.strerror}") from error
    try:
        found = _readable(path)
        try:
            if _version(found, path) == 0:
                found.close()
                return None
        except BaseException:
            found.close()
            raise
        found.execute("PRAGMA query_only = 1")
    except FAULTS as error:
        raise history_error(path, error) from error
    return found


def _readable(path: Path) -> sqlite3.Connection:
    """A read-only connection.

    In WAL mode, SQLite needs to create files beside the database. On a read-only folder it cannot.
    Nobody can change the database there either, so it is opened as ``immutable``.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    found = sqlite3.connect(address, uri=True, timeout=0.5)
    try:
        found.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        found.close()
        if os.access(path.parent, os.W_OK):
            raise
        return sqlite3.connect(f"{address}&immutable=1", uri=True, timeout=0.5)
    except BaseException:
        found.close()
        raise
    return found


def set_aside(folder: Path) -> Path:
    """Rename a damaged history, so that a new one can be created. Returns the new path."""
    path = folder / FILE
    kept = path.with_name(f"{FILE}.damaged")
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(FILE + suffix).unlink(missing_ok=True)
    return kept


def history_error(path: Path, error: Exception) -> HistoryError:
    """The HistoryError for an error of SQLite, or for an error while its rows were decoded."""
    code = getattr(error, "sqlite_errorname", "")
    if (
        not isinstance(error, sqlite3.Error)
        or code in ("SQLITE_CORRUPT", "SQLITE_NOTADB")
        or any(words in str(error) for words in _DAMAGED)
    ):
        return DamagedHistory(f"the history is damaged ({path})")
    if code == "SQLITE_FULL":
        return HistoryError(f"the disk is full: no history is written ({path})")
    return HistoryError(f"the history cannot be used: {error} ({path})")


def _prepare(found: sqlite3.Connection, path: Path) -> None:
    version = _version(found, path)
    if version == 0:
        found.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect before the first table
    found.execute("PRAGMA journal_mode = WAL")
    found.execute("PRAGMA synchronous = NORMAL")  # loses commits at a power cut, not at a kill
    found.execute("PRAGMA cache_size = -512")
    found.execute("PRAGMA wal_autocheckpoint = 256")
    found.execute("PRAGMA journal_size_limit = 2097152")
    found.execute("PRAGMA trusted_schema = 0")
    if version == 0:
        found.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {APPLICATION}; "
            f"PRAGMA user_version = {VERSION}; COMMIT;"
        )


def _version(found: sqlite3.Connection, path: Path) -> int:
    """The schema version; 0 where the file has no table yet."""
    version = int(found.execute("PRAGMA user_version").fetchone()[0])
    tables = found.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version > VERSION:
        raise NewerHistory(
            f"the history was written by a newer llmtop (version {version}, this one knows "
            f"{VERSION})",
            "update llmtop, or set XDG_STATE_HOME to another folder",
        )
    application = found.execute("PRAGMA application_id").fetchone()[0]
    if tables and (application != APPLICATION or version < 1):
        raise DamagedHistory(f"{path} is not a history of llmtop")
    return version if tables else 0


def _unwritable(path: Path, error: OSError) -> HistoryError:
    why = (error.strerror or str(error)).lower()
    return HistoryError(
        f"no history is kept: {why} ({path})",
        "free some space, or set XDG_STATE_HOME to a folder that you can write to",
    )
