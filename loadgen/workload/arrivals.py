"""When the requests of an open loop are due: an absolute schedule, independent of answers."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from operator import itemgetter

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.plan import Arrival
from llmtop.loadgen.workload.trace import Size

GRID_NS = 5_000_000  # the rate is taken as linear over this long
MIN_BURSTINESS, MAX_BURSTINESS = 0.01, math.inf
_AHEAD = 10_000  # arrivals kept at most; beyond, the schedule is simply worked out later


class Arrivals:
    """The due times of one worker's share of a schedule.

    Arrival k falls where the integral of the rate reaches the sum of k gaps of mean 1: constant
    gaps of 1; exponential ones, which makes a Poisson process of any rate over time; or gaps of a
    gamma distribution of shape ``burstiness`` and scale 1 / burstiness. That is what vLLM's
    benchmark calls so (``vllm bench serve --burstiness``): 1 is Poisson, less comes in bursts, and
    the gaps' coefficient of variation is 1 / sqrt(burstiness). Every worker works out the same
    seeded schedule and takes each ``count``-th arrival, so the schedule does not depend on how many
    workers there are.

    level: monotonic nanoseconds -> requests a second. recorded: arrivals that are known, from one
    moment up to another; they come on top.
    """

    def __init__(
        self,
        level: Callable[[int], float],
        since_ns: int,
        arrival: Arrival,
        seed: str,
        index: int = 0,
        count: int = 1,
        burstiness: float = 1.0,
        recorded: Callable[[int, int], list[tuple[int, Size]]] | None = None,
    ) -> None:
        self._level, self._recorded = level, recorded
        self._arrival, self._burstiness = arrival, burstiness
        self._random = random.Random(seed)
        self._index, self._count = index, count
        self._grid_ns, self._grid_level = since_ns, level(since_ns)
        self._left = self._gap()  # of the integral, until the next arrival
        self._number = 0
        self._due: deque[tuple[int, Size | None]] = deque()

    def next_due(self, until_ns: int) -> int | None:
        """The next due moment at or before ``until_ns``, if any; the same one until it is taken."""
        while self._grid_ns < until_ns and len(self._due) < _AHEAD:
            self._step()
        return self._due[0][0] if self._due and self._due[0][0] <= until_ns else None

    def take(self) -> Size | None:
        """The next due moment was dealt with. How long the request was, where that is recorded."""
        return self._due.popleft()[1]

    def _gap(self) -> float:
        match self._arrival:
            case Arrival.POISSON:
                return self._random.expovariate(1.0)
            case Arrival.GAMMA if not math.isinf(self._burstiness):
                # The smallest gaps of bursts underflow to 0, which no rate of 0 may ever reach.
                return max(1e-12, self._random.gammavariate(self._burstiness, 1 / self._burstiness))
        return 1.0

    def _step(self) -> None:
        end_level = self._level(self._grid_ns + GRID_NS)
        area = (self._grid_level + end_level) / 2 * (GRID_NS / NS)
        passed = 0.0
        found: list[tuple[int, Size | None]] = []
        while passed + self._left <= area:
            passed += self._left
            found.append((self._grid_ns + int(GRID_NS * passed / area), None))
            self._left = self._gap()
        self._left -= area - passed
        if self._recorded is not None:
            known = self._recorded(self._grid_ns, self._grid_ns + GRID_NS)
            if known:
                found = sorted([*found, *known], key=itemgetter(0))
        for arrival in found:
            if self._number % self._count == self._index:
                self._due.append(arrival)
            self._number += 1
        self._grid_ns += GRID_NS
        self._grid_level = end_level
