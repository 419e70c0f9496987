"""The search of ``tune``: which settings to measure next, and when the pairs decide.

Each candidate is measured once, the best are measured in pairs
with the operator's own settings, in turns (A B B A), until the interval of the ratio decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean, stdev

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile

CONFIDENCE = 0.95
LEAST_PAIRS, MOST_PAIRS = 3, 8
FINALISTS = 2
WORTH = 1.05
"""A gain below this is none: nobody changes an engine for it."""
FULL = 0.99  # of the requests in time: there is nothing to gain
SMOOTH_PER_S = 0.5  # added to both sides: a goodput of 0 has no ratio

Settings = Mapping[str, int]


class Verdict(StrEnum):
    """What the pairs say."""

    BETTER = "better"
    NOTHING = "nothing to gain"
    UNKNOWN = "cannot tell"


class Measured(Struct, frozen=True):
    """One run. share: of the requests that were asked for, in time. goodput_per_s: in time."""

    goodput_per_s: float
    share: float
    n: int


class Ratio(Struct, frozen=True):
    """Candidate over the operator's settings; None without enough pairs."""

    value: float
    low: float | None
    high: float | None
    pairs: int


class Result(Struct, frozen=True):
    """settings: the best that was found; the operator's own for any verdict but "better"."""

    verdict: Verdict
    settings: Settings
    ratio: Ratio | None


class Search:
    """Ask ``next`` which settings to measure, hand ``take`` the result, until ``next`` is None.

    Candidate 0 is the operator's own settings.
    """

    def __init__(self, own: Settings, candidates: Sequence[Settings]) -> None:
        self.candidates: list[Settings] = [own, *candidates]
        self.runs: list[list[Measured]] = [[] for _ in self.candidates]
        self._pairs: dict[int, list[tuple[float, float]]] = {}
        self._queue: list[int] = list(range(len(self.candidates)))
        self._pending: list[tuple[int, Measured]] = []
        self._screening = True
        self._finalists: list[int] = []
        self.result: Result | None = None

    @property
    def left(self) -> int:
        """About how many runs are still to come."""
        if self.result is not None:
            return 0
        if self._screening:
            return len(self._queue) + 2 * FINALISTS * LEAST_PAIRS
        return max(len(self._queue), 2)

    def next(self) -> int | None:
        """The candidate to measure now; None: it is decided, see ``result``."""
        if self.result is not None:
            return None
        if not self._queue:
            self._plan()
        return self._queue[0] if self._queue else None

    def take(self, measured: Measured) -> None:
        """The result of the run that ``next`` asked for."""
        index = self._queue.pop(0)
        self.runs[index].append(measured)
        if self._screening:
            if index == 0 and not measured.n and measured.share >= FULL:  # no request came
                self.result = Result(Verdict.UNKNOWN, self.candidates[0], None)
            elif index == 0 and measured.share >= FULL:
                ratio = Ratio(1.0, 1.0, 1.0 / measured.share, 0)
                self.result = Result(Verdict.NOTHING, self.candidates[0], ratio)
            return
        self._pending.append((index, measured))
        if len(self._pending) == 2:
            (a, first), (b, second) = self._pending
            own, other = (first, second) if a == 0 else (second, first)
            pair = (own.goodput_per_s, other.goodput_per_s)
            self._pairs.setdefault(a or b, []).append(pair)
            self._pending = []

    def drop(self) -> None:
        """The run that ``next`` asked for broke the SLO at once: it counts as none in time."""
        self.take(Measured(0.0, 0.0, 0))

    def _plan(self) -> None:
        if self._screening:
            self._screening = False
            ranked = sorted(
                range(1, len(self.candidates)), key=lambda i: -self.runs[i][-1].goodput_per_s
            )
            self._finalists = ranked[:FINALISTS]
            if not self._finalists:
                self.result = Result(Verdict.NOTHING, self.candidates[0], None)
            for place in self._finalists:
                self._queue += _turns(place, 0, LEAST_PAIRS)
            return
        best = max(self._finalists, key=lambda i: self._ratio(i).value)
        found = self._ratio(best)
        verdict = _verdict(found)
        if verdict is not None or found.pairs >= MOST_PAIRS:
            verdict = verdict or Verdict.UNKNOWN
            chosen = best if verdict is Verdict.BETTER else 0
            self.result = Result(verdict, self.candidates[chosen], found)
            return
        self._queue += _turns(best, found.pairs, 1)

    def _ratio(self, index: int) -> Ratio:
        return ratio_of(self._pairs.get(index, []))


def _turns(candidate: int, begun: int, pairs: int) -> list[int]:
    """A B B A …: a drift that is a straight line cancels over every two pairs."""
    found = []
    for number in range(begun, begun + pairs):
        found += [0, candidate] if number % 2 == 0 else [candidate, 0]
    return found


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The geometric mean of B over A, with a paired t interval on the logarithms."""
    if not pairs:
        return Ratio(1.0, None, None, 0)
    logs = [math.log((b + SMOOTH_PER_S) / (a + SMOOTH_PER_S)) for a, b in pairs]
    middle, n = fmean(logs), len(logs)
    if n < 2:
        return Ratio(math.exp(middle), None, None, n)
    reach = t_quantile(1 - (1 - CONFIDENCE) / 2, n - 1) * stdev(logs) / math.sqrt(n)
    return Ratio(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), n)


def _verdict(found: Ratio) -> Verdict | None:
    """What a ratio says; None: not yet anything."""
    if found.low is None or found.high is None:
        return None
    if found.low > 1.0 and found.value >= WORTH:
        return Verdict.BETTER
    if found.high < WORTH:
        return Verdict.NOTHING
    return None
