"""The length of the queue, shared by all processes of one vLLM server in a memory-mapped file.

A front end (API server process) must refuse a request before it reaches the engine. But only the
schedulers know the queue, and only between two steps. So each scheduler writes how many requests it
has received and how many wait. Each front end writes how many it has admitted. A request that was
admitted but not yet received is in transit; it counts as waiting.

The file is next to the socket, accessible only by this user, and contains only these counters.
Each counter is one aligned 8-byte word with one writer, so no lock is needed.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable

SUFFIX = ".queue"
RANKS = 64
FRONT_ENDS = 64
WIDTH = 8  # counters of one process
SIZE = (RANKS + FRONT_ENDS) * WIDTH * 8  # bytes

# Indices of a scheduler's counters.
PID, RECEIVED, WAITING, ROOM, LIMIT = range(5)
# Indices of a front end's counters; its PID is at the same index.
ADMITTED, UNFINISHED, REFUSED = range(1, 4)


class QueueCounters:
    """The counters of one server. Raises OSError if its folder or file is not private.

    path: the socket of rank 0. alive: whether a process with this pid exists.
    """

    def __init__(self, path: str, alive: Callable[[int], bool] | None = None) -> None:
        self._alive = alive or _is_alive
        self._counters = memoryview(_map(path + SUFFIX)).cast("q")

    def open_rank(self, rank: int) -> RankCounters:
        """Reset and return the counters of one scheduler. ValueError if the rank is out of range.

        Rank 0 also resets those of the front ends: vLLM starts it before any front end.
        """
        if not 0 <= rank < RANKS:
            raise ValueError(f"rank {rank} is out of range: the file has {RANKS} ranks")
        if rank == 0:
            for index in range(RANKS * WIDTH, len(self._counters)):
                self._counters[index] = 0
        return RankCounters(self._open(rank), self)

    def open_front_end(self, number: int) -> memoryview:
        """Reset and return the counters of one front end. ValueError if it is out of range."""
        if not 0 <= number < FRONT_ENDS:
            raise ValueError(f"front end {number} is out of range: the file has {FRONT_ENDS}")
        return self._open(RANKS + number)

    def ranks(self) -> list[memoryview]:
        """The counters of the schedulers whose process is alive."""
        return self._of_live_processes(range(RANKS))

    def front_ends(self) -> list[memoryview]:
        """The counters of the front ends whose process is alive."""
        return self._of_live_processes(range(RANKS, RANKS + FRONT_ENDS))

    def refused(self) -> int:
        """Requests that all front ends have refused since the server's start."""
        return sum(self._counters[RANKS * WIDTH + REFUSED :: WIDTH])

    def _open(self, slot: int) -> memoryview:
        own = self._counters[slot * WIDTH : (slot + 1) * WIDTH]
        for index in range(WIDTH):
            own[index] = 0
        own[PID] = os.getpid()
        return own

    def _of_live_processes(self, slots: range) -> list[memoryview]:
        every = (self._counters[slot * WIDTH : (slot + 1) * WIDTH] for slot in slots)
        return [one for one in every if one[PID] and self._alive(one[PID])]


class RankCounters:
    """The counters that one scheduler writes, on the engine's thread."""

    def __init__(self, own: memoryview, counters: QueueCounters) -> None:
        self._own = own
        self._received = 0
        self._full = False
        self.refused = counters.refused

    def received(self) -> None:
        """The scheduler has received a request."""
        self._received += 1

    def close(self) -> None:
        """The counters are no longer updated, so front ends must ignore them."""
        self._own[PID] = 0

    def write(self, waiting: int, running: int, slots: int, planned: bool) -> None:
        """Write the present queue. slots: how many requests may run.

        planned: the scheduler has just admitted what fits. Requests that still wait then wait for
        space, so free slots of the batch are no room for others.
        """
        if planned:
            self._full = waiting > 0
        own = self._own
        own[ROOM] = 0 if self._full else max(0, slots - running)
        own[WAITING] = waiting
        own[RECEIVED] = self._received


def _map(path: str) -> mmap.mmap:
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if not private or found.st_uid != os.geteuid():
        raise OSError("the folder of the queue counters is accessible by other users")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError("the file of the queue counters belongs to another user")
        os.fchmod(descriptor, 0o600)
        if found.st_size != SIZE:
            os.ftruncate(descriptor, SIZE)
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
