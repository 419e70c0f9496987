"""When the requests of an open loop are due: an absolute schedule, whatever comes back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from llmtop.loadgen.clock import NS
from llmtop.loadgen.plan import Arrival

GRID_NS = 5_000_000  # the rate is taken as linear over this long
_AHEAD = 10_000  # arrivals kept at most; beyond, the schedule is simply worked out later


class Arrivals:
    """The due times of one worker's share of a schedule.

    Arrival k falls where the integral of the rate reaches the sum of k gaps of mean 1: constant
    gaps of 1, or exponential ones, which makes a Poisson process of any rate over time. Every
    worker works out the same seeded schedule and takes each ``count``-th arrival, so the schedule
    does not depend on how many workers there are.

    level: monotonic nanoseconds -> requests a second.
    """

    def __init__(
        self,
        level: Callable[[int], float],
        since_ns: int,
        arrival: Arrival,
        seed: str,
        index: int = 0,
        count: int = 1,
    ) -> None:
        self._level = level
        self._arrival = arrival
        self._random = random.Random(seed)
        self._index, self._count = index, count
        self._grid_ns, self._grid_level = since_ns, level(since_ns)
        self._left = self._gap()  # of the integral, until the next arrival
        self._number = 0
        self._due: deque[int] = deque()

    def next_due(self, until_ns: int) -> int | None:
        """The next due moment at or before ``until_ns``, if any; the same one until it is taken."""
        while self._grid_ns < until_ns and len(self._due) < _AHEAD:
            self._step()
        return self._due[0] if self._due and self._due[0] <= until_ns else None

    def take(self) -> None:
        """The next due moment was dealt with."""
        self._due.popleft()

    def _gap(self) -> float:
        return 1.0 if self._arrival is Arrival.CONSTANT else self._random.expovariate(1.0)

    def _step(self) -> None:
        end_level = self._level(self._grid_ns + GRID_NS)
        area = (self._grid_level + end_level) / 2 * (GRID_NS / NS)
        passed = 0.0
        while passed + self._left <= area:
            passed += self._left
            if self._number % self._count == self._index:
                self._due.append(self._grid_ns + int(GRID_NS * passed / area))
            self._number += 1
            self._left = self._gap()
        self._left -= area - passed
        self._grid_ns += GRID_NS
        self._grid_level = end_level
