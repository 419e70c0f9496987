"""How full one scheduler's queue is, written by it and read by the HTTP process.

A page of shared memory in the folder of the socket. The scheduler writes it twice a round, without
a lock: a counter is odd while it writes, and a reader that saw it change reads again.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path

SUFFIX = ".queue"
REFUSED_SUFFIX = ".refused"
_PAGE = struct.Struct("=qqqqdq")  # counter, waiting, running, limit, received, open
_COUNT = struct.Struct("=q")
_TRIES = 100


class Queue:
    """One look. waiting, running: requests. limit: of those that run. received: until when
    (perf_counter) it has taken in what was sent to it."""

    __slots__ = ("limit", "received", "running", "waiting")

    def __init__(self, waiting: int, running: int, limit: int, received: float) -> None:
        self.waiting = waiting
        self.running = running
        self.limit = limit
        self.received = received


class QueueBoard:
    """The scheduler's side. Raises OSError where the file cannot be made.

    limit: how many requests may run at once, now.
    """

    def __init__(self, path: str, limit: Callable[[], int]) -> None:
        self._page = _shared(path, _PAGE.size)
        self._limit = limit
        self._counter = 0
        self.close()  # what an earlier engine left there is not ours

    def publish(self, waiting: int, running: int, received: float) -> None:
        """Show what holds now."""
        self._write(waiting, running, self._limit(), received, 1)

    def close(self) -> None:
        """Nothing is shown from now on."""
        self._write(0, 0, 0, 0.0, 0)

    def _write(self, waiting: int, running: int, limit: int, received: float, there: int) -> None:
        self._counter += 1
        _COUNT.pack_into(self._page, 0, self._counter)
        self._counter += 1
        _PAGE.pack_into(self._page, 0, self._counter - 1, waiting, running, limit, received, there)
        _COUNT.pack_into(self._page, 0, self._counter)


class BoardReader:
    """The HTTP process's side of one scheduler's board."""

    def __init__(self, path: str) -> None:
        self._page = _shared(path, _PAGE.size)

    def read(self) -> Queue | None:
        """What the scheduler showed last; None when it shows nothing."""
        for _ in range(_TRIES):
            counter, waiting, running, limit, received, there = _PAGE.unpack_from(self._page, 0)
            if counter % 2 == 0 and counter == _COUNT.unpack_from(self._page, 0)[0]:
                return Queue(waiting, running, limit, received) if there else None
        return None


class RefusedCount:
    """How many requests one HTTP process has refused, for the scheduler's steps to show."""

    def __init__(self, path: str) -> None:
        self._page = _shared(path, _COUNT.size)
        self._lock = threading.Lock()
        _COUNT.pack_into(self._page, 0, 0)

    def add(self) -> None:
        """One more."""
        with self._lock:
            _COUNT.pack_into(self._page, 0, self.value + 1)

    @property
    def value(self) -> int:
        """So many so far."""
        found: int = _COUNT.unpack_from(self._page, 0)[0]
        return found


def refused_reader(path: str) -> Callable[[], int | None]:
    """What an HTTP process counts at ``path``; None as long as it does not."""
    page: list[mmap.mmap] = []

    def read() -> int | None:
        if not page:
            if not Path(path).exists():
                return None
            page.append(_shared(path, _COUNT.size))
        found: int = _COUNT.unpack_from(page[0], 0)[0]
        return found

    return read


def _shared(path: str, size: int) -> mmap.mmap:
    """The file at ``path`` as memory. Raises OSError; also where others may write there."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} is open to others")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
