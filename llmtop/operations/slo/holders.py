"""Ensures one holder per engine, and publishes its state.

The holder locks ``hold.lock`` in the engine's folder. The kernel releases the lock when the holder
exits. ``hold.json``, mode 0600, contains the holder's identity and state.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.host.private_files import read_own, write_whole

LOCK, FILE = "hold.lock", "hold.json"
LIMIT = 64 * 1024  # bytes


class Action(Struct, frozen=True):
    """One change of one option. time: unix seconds. option: "" for an event without a change."""

    time: float
    option: str
    before: int | None
    after: int | None
    why: str


class HolderState(Struct, frozen=True):
    """The published state of a holder. since, time: unix seconds of its start and last update.

    limits: values in force by option name. own: the operator's values. engaged: the limits differ
    from the operator's. actions: their number. words: a problem, "" for none. recent: the newest
    actions, oldest first.
    """

    pid: int
    who: str
    slo: str
    since: float
    time: float
    own: Mapping[str, int]
    limits: Mapping[str, int]
    engaged: bool
    actions: int
    detached: bool = False
    words: str = ""
    recent: tuple[Action, ...] = ()


_decode = msgspec.json.Decoder(HolderState).decode


class HolderLock:
    """The exclusive lock to hold one engine. folder: of the engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    def take(self) -> None:
        """Take the lock. Raises LlmtopError when another process has it, or on an I/O error."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._folder / LOCK, flags, 0o600)
        except OSError as error:
            raise LlmtopError(
                f"the engine cannot be held: {error.strerror}", f"see {self._folder}"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise self._taken() from None
        self._fd = fd

    def _taken(self) -> LlmtopError:
        found = _read(self._folder)
        if found is None:
            return LlmtopError("another process holds this engine", "end that hold first")
        return LlmtopError(
            f"{found.who} (pid {found.pid}) already holds this engine, for {found.slo}",
            "end that hold first: `llmtop hold NAME --stop`",
        )

    def write(self, state: HolderState) -> None:
        """Publish the state. Errors are ignored: a full disk must not end a hold."""
        with contextlib.suppress(OSError):
            write_whole(self._folder / FILE, msgspec.json.encode(state))

    def release(self) -> None:
        """Release the lock and remove the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                (self._folder / FILE).unlink()
            os.close(fd)


def holder_of(folder: Path) -> HolderState | None:
    """The current holder of the engine, or None. folder: of the engine."""
    found = _read(folder)
    if found is None or not _locked(folder):
        return None
    return found


def _read(folder: Path) -> HolderState | None:
    try:
        return _decode(read_own(folder / FILE, LIMIT))
    except (OSError, ValueError):
        return None


def _locked(folder: Path) -> bool:
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
