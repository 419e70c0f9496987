"""The state of one scheduler's queue, which the scheduler writes and the HTTP process reads.

It is a page of shared memory, mapped from a file in the folder of the socket. There is no lock (a
seqlock): a counter is odd during a write, and a reader repeats its read if the counter changed.
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
_PAGE = struct.Struct("=qqqqdq")  # counter, waiting, running, limit, received, valid
_COUNT = struct.Struct("=q")
_TRIES = 100


class QueueState:
    """The state at one moment.

    waiting, running: numbers of requests. limit: how many may run. received: the scheduler has
    received everything that was sent to it before this time, perf_counter seconds.
    """

    __slots__ = ("limit", "received", "running", "waiting")

    def __init__(self, waiting: int, running: int, limit: int, received: float) -> None:
        self.waiting = waiting
        self.running = running
        self.limit = limit
        self.received = received


class QueueWriter:
    """The scheduler's side. Raises OSError if the file cannot be created.

    limit: returns how many requests may run now.
    """

    def __init__(self, path: str, limit: Callable[[], int]) -> None:
        self._page = _shared(path, _PAGE.size)
        self._limit = limit
        self._counter = 0
        self.close()  # removes the state that an earlier engine left

    def publish(self, waiting: int, running: int, received: float) -> None:
        """Write the present state; see ``QueueState``."""
        self._write(waiting, running, self._limit(), received, 1)

    def close(self) -> None:
        """Mark the state as unknown."""
        self._write(0, 0, 0, 0.0, 0)

    def _write(self, waiting: int, running: int, limit: int, received: float, valid: int) -> None:
        self._counter += 1
        _COUNT.pack_into(self._page, 0, self._counter)
        self._counter += 1
        _PAGE.pack_into(self._page, 0, self._counter - 1, waiting, running, limit, received, valid)
        _COUNT.pack_into(self._page, 0, self._counter)


class QueueReader:
    """The HTTP process's side. Raises OSError if the file cannot be opened."""

    def __init__(self, path: str) -> None:
        self._page = _shared(path, _PAGE.size)

    def read(self) -> QueueState | None:
        """The last published state; None if it is unknown."""
        for _ in range(_TRIES):
            counter, waiting, running, limit, received, valid = _PAGE.unpack_from(self._page, 0)
            if counter % 2 == 0 and counter == _COUNT.unpack_from(self._page, 0)[0]:
                return QueueState(waiting, running, limit, received) if valid else None
        return None


class RefusedCounter:
    """The requests that one HTTP process has refused; the scheduler reports them in its steps."""

    def __init__(self, path: str) -> None:
        self._page = _shared(path, _COUNT.size)
        self._lock = threading.Lock()
        _COUNT.pack_into(self._page, 0, 0)

    def add(self) -> None:
        """Count one refused request."""
        with self._lock:
            _COUNT.pack_into(self._page, 0, self.value + 1)

    @property
    def value(self) -> int:
        """The requests refused since the start."""
        found: int = _COUNT.unpack_from(self._page, 0)[0]
        return found


def refused_reader(path: str) -> Callable[[], int | None]:
    """Returns a function that reads the counter at ``path``; its result is None without a file."""
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
    """Map the file at ``path``. Raises OSError, also if other users can access its folder."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} is accessible by other users")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
