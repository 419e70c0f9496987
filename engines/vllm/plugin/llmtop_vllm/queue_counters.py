"""How long the queue is, known to all processes of one vLLM server: numbers in a shared file.

A front end (API server process) must refuse a request before it reaches the engine, but only the
schedulers know the queue, and they know it only between two steps. So each scheduler writes what
it has received and what it left in its queue, and each front end what it has let in. What was let
in and is not received yet is on its way, and waits too.

The file lies beside the socket, is ours alone, and holds nothing but these numbers. Each number has
one writer, and is one aligned word.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable

SUFFIX = ".queue"
RANKS = 64
FRONT_ENDS = 64
WIDTH = 8  # numbers of one process
SIZE = (RANKS + FRONT_ENDS) * WIDTH * 8

# A scheduler's numbers.
PID, RECEIVED, WAITING, ROOM, LIMIT = range(5)
# A front end's numbers, behind its pid.
LET_IN, UNFINISHED, REFUSED = range(1, 4)


class QueueCounters:
    """The numbers of one server. path: of the socket of rank 0."""

    def __init__(self, path: str, alive: Callable[[int], bool] | None = None) -> None:
        self._alive = alive or _is_alive
        self._numbers = memoryview(_map(path + SUFFIX)).cast("q")

    def open_rank(self, rank: int) -> RankCounters:
        """The numbers of one scheduler, all zero. Rank 0 comes before any front end does."""
        if not 0 <= rank < RANKS:
            raise ValueError(f"rank {rank} has no place among {RANKS}")
        if rank == 0:
            for at in range(RANKS * WIDTH, len(self._numbers)):
                self._numbers[at] = 0
        return RankCounters(self._claim(rank), self)

    def open_front_end(self, number: int) -> memoryview:
        """The numbers of one front end, all zero."""
        if not 0 <= number < FRONT_ENDS:
            raise ValueError(f"front end {number} has no place among {FRONT_ENDS}")
        return self._claim(RANKS + number)

    def ranks(self) -> list[memoryview]:
        """The numbers of the schedulers that are alive."""
        return self._living(range(RANKS))

    def front_ends(self) -> list[memoryview]:
        """The numbers of the front ends that are alive."""
        return self._living(range(RANKS, RANKS + FRONT_ENDS))

    def refused(self) -> int:
        """Requests that were refused so far, by all front ends."""
        return sum(self._numbers[RANKS * WIDTH + REFUSED :: WIDTH])

    def _claim(self, place: int) -> memoryview:
        mine = self._numbers[place * WIDTH : (place + 1) * WIDTH]
        for at in range(WIDTH):
            mine[at] = 0
        mine[PID] = os.getpid()
        return mine

    def _living(self, places: range) -> list[memoryview]:
        all_of_them = (self._numbers[p * WIDTH : (p + 1) * WIDTH] for p in places)
        return [one for one in all_of_them if one[PID] and self._alive(one[PID])]


class RankCounters:
    """What one scheduler writes, on the engine's thread."""

    def __init__(self, numbers: memoryview, counters: QueueCounters) -> None:
        self._numbers = numbers
        self._received = 0
        self._behind = False
        self.refused = counters.refused

    def received(self) -> None:
        """A request came into the scheduler."""
        self._received += 1

    def close(self) -> None:
        """Nobody keeps these numbers any more: front ends must not go by them."""
        self._numbers[PID] = 0

    def write(self, waiting: int, running: int, slots: int, planned: bool) -> None:
        """The queue as it is. planned: the scheduler has just admitted what it could; what waits
        then waits for space, else for its next step."""
        if planned:
            self._behind = waiting > 0
        numbers = self._numbers
        numbers[ROOM] = 0 if self._behind else max(0, slots - running)
        numbers[WAITING] = waiting
        numbers[RECEIVED] = self._received


def _map(path: str) -> mmap.mmap:
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    place = os.lstat(folder)
    private = stat.S_ISDIR(place.st_mode) and not stat.S_IMODE(place.st_mode) & 0o077
    if not private or place.st_uid != os.geteuid():
        raise OSError("the folder of the queue's numbers is not ours alone")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError("the file of the queue's numbers is not ours")
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
