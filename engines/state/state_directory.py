"""The state directory: one record and one log for each engine, enough to take it over again.

The files ``$XDG_STATE_HOME/llmtop/engines/<name>/record.json`` and ``engine.log`` are readable only
by their owner. Records are written atomically. An unreadable record is reported and not changed: a
newer llmtop may have written it, and it is the only knowledge of a running engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.host.ownership import strange_part
from llmtop.engines.host.private_files import make_private, read_own, write_whole
from llmtop.engines.host.rank_sockets import SUFFIX_BYTES
from llmtop.engines.state.record_file import (
    RECORD_BYTES,
    SCHEMA,
    ForeignState,
    NewerRecord,
    StateError,
    decode,
    encode,
)
from llmtop.engines.state.startup_times import StartupTimes
from llmtop.values import replace

__all__ = ["RECORD_BYTES", "SCHEMA", "ForeignState", "NameBusy", "NewerRecord", "Problem"]
__all__ += ["StateDirectory", "StateError", "check_name"]

SOCKET_PATH_BYTES = 107  # sun_path holds 108 with the final NUL (unix(7))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")

Write = Callable[[Path, bytes], None]


class NameBusy(LlmtopError):
    """Another llmtop starts or changes an engine of this name now."""


class Problem(Struct, frozen=True):
    """A record that cannot be used, in one sentence, and what to try."""

    name: str
    path: str
    message: str
    hint: str


# Created at import: files are read on several threads, and msgspec 0.22 crashes (invalid pointer)
# when two threads are the first to use one class.


def check_name(name: str) -> None:
    """Raises UsageError unless ``name`` is valid for an engine and its folder."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an engine's name",
            "use up to 40 letters, digits, dots, dashes and underscores; begin with a letter "
            "or a digit",
        )


class StateDirectory:
    """The store of engine records. No other class accesses these files.

    root: default is the user's state folder. runtime: the folder for sockets, default is one in the
    temporary directory. Both are created on demand. write: writes a file atomically.
    """

    def __init__(
        self, root: Path | None = None, runtime: Path | None = None, *, write: Write = write_whole
    ) -> None:
        self.root = root if root is not None else platformdirs.user_state_path("llmtop")
        self._runtime = runtime
        self._write = write
        self.startups = StartupTimes(self.root / "startups.json", write)

    def folder(self, name: str) -> Path:
        """The folder of one engine."""
        check_name(name)
        return self.root / "engines" / name

    @property
    def locks(self) -> Path:
        """The folder of locks between this user's llmtop processes; created on use."""
        return self.root / "readers"

    def refuse_strangers(self, name: str | None = None) -> None:
        """Raises ForeignState when the state directory or an engine's folder has another owner."""
        path = self.root if name is None else self.folder(name)
        found = strange_part(path)
        if found is not None:
            part, user = found
            raise ForeignState(
                f"{part} belongs to the user {user}: llmtop does not use {path}",
                f"run llmtop as {user}, or set XDG_STATE_HOME to your own folder",
            )

    def inner_folders(self) -> list[Path]:
        """The existing folders: the one of all engines, and that of each engine."""
        return [self.root / "engines", *sorted(self.root.glob("engines/*/"))]

    def log_path(self, name: str) -> Path:
        """The engine's log."""
        return self.folder(name) / "engine.log"

    def make_folder(self, name: str) -> Path:
        """Create the engine's folder, private to its owner. Raises StateError on failure."""
        folder = self.folder(name)
        self.refuse_strangers(name)
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for part in (self.root, folder.parent, folder):
                with contextlib.suppress(FileExistsError):
                    part.mkdir(mode=0o700)
                if stat.S_IMODE(part.stat().st_mode) & 0o077:
                    part.chmod(0o700)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return folder

    @contextlib.contextmanager
    def lock(self, name: str, wait_s: float = 0.0) -> Iterator[None]:
        """Lock an engine's name. NameBusy if another llmtop holds it longer than ``wait_s``.

        The kernel releases the lock when its holder exits.
        """
        path = self.make_folder(name) / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= deadline:
                        raise NameBusy(
                            f"another llmtop is starting or changing the engine {name!r} now",
                            "wait a moment, or choose another --name",
                        ) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(fd)

    def save(self, record: EngineRecord) -> None:
        """Write a record. Raises StateError on failure."""
        path = self.make_folder(record.name) / "record.json"
        try:
            self._write(path, encode(record))
        except OSError as error:
            raise _unwritable(path, error) from error

    def write_file(self, name: str, file: str, text: str) -> None:
        """Write a private file into an engine's folder. Raises StateError on failure."""
        path = self.make_folder(name) / file
        try:
            self._write(path, text.encode())
        except OSError as error:
            raise _unwritable(path, error) from error

    def discard(self, name: str) -> None:
        """Delete the record of an engine that never started; its log stays."""
        with contextlib.suppress(OSError):
            (self.folder(name) / "record.json").unlink()

    def rename(self, record: EngineRecord, name: str) -> EngineRecord:
        """Rename a running engine. The caller holds both locks. Raises StateError on failure.

        Its log moves too: the engine has it open and continues to write. The log of the earlier
        engine of that name becomes ``engine.log.1``.
        """
        log, old = self.log_path(name), self.log_path(record.name)
        renamed = replace(
            record,
            spec=replace(record.spec, name=name),
            log_path=str(log),
            replaces=None,
        )
        self.make_folder(name)
        try:
            if log.exists():
                log.replace(log.with_name(log.name + ".1"))
            old.replace(log)
        except OSError as error:
            raise _unwritable(log, error) from error
        self.save(renamed)
        self.discard(record.name)
        return renamed

    def set_aside(self, name: str) -> None:
        """Keep a damaged record as ``record.json.damaged``, so that a new one can be written."""
        path = self.folder(name) / "record.json"
        with contextlib.suppress(OSError):
            path.replace(path.with_name("record.json.damaged"))

    def load(self, name: str) -> EngineRecord | None:
        """An engine's record, None without one. Raises StateError if it cannot be used."""
        path = self.folder(name) / "record.json"
        left = f"the file stays unchanged: {path}"
        self.refuse_strangers(name)
        try:
            data = read_own(path, RECORD_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(
                f"the record of {name!r} cannot be read: {_why(error)}", left
            ) from error
        record = decode(data, name, left)
        return record

    def scan(self) -> tuple[list[EngineRecord], list[Problem]]:
        """All records by name, and the unusable ones."""
        records, problems = [], []
        try:
            self.refuse_strangers()
        except ForeignState as error:
            return [], [Problem("", str(self.root), error.message, error.hint)]
        try:
            names = sorted(path.parent.name for path in self.root.glob("engines/*/record.json"))
        except OSError:
            names = []
        for name in names:
            if not _NAME.fullmatch(name):
                continue
            try:
                record = self.load(name)
            except StateError as error:
                path = str(self.folder(name) / "record.json")
                problems.append(Problem(name, path, error.message, error.hint))
            else:
                if record is not None:
                    records.append(record)
        return records, problems

    def try_to_write(self) -> None:
        """Write a small file and remove it again. Raises StateError on failure."""
        path = self.root / "trial"
        self.refuse_strangers()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, b"llmtop\n" * 100)
            path.unlink()
        except OSError as error:
            raise _unwritable(path, error) from error

    def socket_path(self, name: str) -> Path:
        """The path of an engine's live-option socket, in a folder of mode 0700 of this user.

        It is never in the user's runtime folder, which is removed when the last session logs out,
        while engines stay. If the first candidate is not private, or its path is too long for a
        socket, the next one is used.
        """
        check_name(name)
        # Two state directories may contain the same name, but share the temporary folder.
        import hashlib  # loads OpenSSL: 4 MiB, not needed for watching

        mark = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:8]
        spare = _temporary() / f"llmtop-{os.getuid()}"
        choices = (spare, self.root / "sockets")
        for folder in choices if self._runtime is None else (self._runtime, *choices):
            path = folder / f"{name}.{mark}.sock"
            longest = len(os.fsencode(path)) + SUFFIX_BYTES  # path of a data-parallel rank
            if longest <= SOCKET_PATH_BYTES and make_private(folder):
                return path
        raise StateError(
            f"there is no private folder for the socket of {name!r}",
            f"make {spare} private (mode 0700), or set TMPDIR to a private folder",
        )


def _temporary() -> Path:
    import tempfile  # only where an engine is started

    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # a test file failed in each folder: the disk is full
        return Path("/tmp")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"llmtop's state cannot be written: {_why(error)} ({path})",
        "free some space, or set XDG_STATE_HOME to a folder that you can write to",
    )
