"""The search of ``tune``: which settings to measure next, and when the rounds decide.

In a round the operator's own settings and each candidate that is left are measured once, under the
same arrivals. The first rounds leave at least half of the candidates, at last three. Then rounds
follow, forth and back (A B C, C B A), until intervals decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from statistics import fmean, stdev

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile

CONFIDENCE = 0.95
LEAST_PAIRS, MOST_PAIRS = 3, 8
FINALISTS = 3
WORTH = 1.05
"""A smaller gain counts as none: it is not worth a change."""
FULL = 0.99  # of the requests in time: there is nothing to gain
SMOOTH_PER_S = 0.5  # added to both sides: a goodput of 0 has no ratio

Settings = Mapping[str, int]


class Verdict(StrEnum):
    """The verdict of the pairs."""

    BETTER = "better"
    NOTHING = "nothing to gain"
    UNKNOWN = "cannot tell"


class Measured(Struct, frozen=True):
    """One run. share: of the requests that were asked for, in time. goodput_per_s: in time.

    settled: the run was long beside its requests. In a short run of an open loop the queue of an
    overloaded engine has not grown yet, and all requests can be in time.
    """

    goodput_per_s: float
    share: float
    n: int
    settled: bool = True


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

    Candidate 0 is the operator's own settings. round: number of the round of the next run; runs of
    a round are compared, so they are to meet the same arrivals.
    """

    def __init__(self, own: Settings, candidates: Sequence[Settings]) -> None:
        self.candidates: list[Settings] = [own, *candidates]
        self.runs: list[list[Measured]] = [[] for _ in self.candidates]
        self.round = 0
        self.result: Result | None = None
        self._left: list[int] = list(range(1, len(self.candidates)))
        self._queue: list[int] = [0, *self._left]
        self._now: dict[int, float] = {}  # goodput by candidate, of this round
        self._deciding: list[dict[int, float]] = []  # the same of each round that decides
        self._screening = True

    @property
    def left(self) -> int:
        """About how many runs are still to come."""
        if self.result is not None:
            return 0
        size = 1 + min(len(self._left), FINALISTS)
        rounds = LEAST_PAIRS - len(self._deciding) - (not self._screening)
        return len(self._queue) + size * max(0, rounds)

    def next(self) -> int | None:
        """The candidate to measure now; None: it is decided, see ``result``."""
        return self._queue[0] if self.result is None else None

    def take(self, measured: Measured) -> None:
        """The result of the run that ``next`` asked for."""
        index = self._queue.pop(0)
        self.runs[index].append(measured)
        self._now[index] = measured.goodput_per_s
        if index == 0 and not self.round and measured.share >= FULL and measured.settled:
            ratio = Ratio(1.0, 1.0, 1.0 / measured.share, 0) if measured.n else None
            verdict = Verdict.NOTHING if measured.n else Verdict.UNKNOWN  # no request came
            self.result = Result(verdict, self.candidates[0], ratio)
        elif not self._queue:
            self._end_round()

    def drop(self) -> None:
        """The run that ``next`` asked for broke the SLO at once: it counts as none in time."""
        self.take(Measured(0.0, 0.0, 0))

    def _end_round(self) -> None:
        found, self._now = self._now, {}
        with_own = True
        if self._screening:
            self._screen()
        else:
            self._deciding.append(found)
            if len(self._deciding) >= LEAST_PAIRS:
                with_own = self._decide()
        if not self._left:
            self.result = Result(Verdict.NOTHING, self.candidates[0], None)
        self.round += 1
        members = [0, *self._left] if with_own else list(self._left)
        self._queue = members if len(self._deciding) % 2 == 0 else members[::-1]

    def _screen(self) -> None:
        """The better half goes on; all that are left met the same arrivals."""
        kept = max(FINALISTS, math.ceil(len(self._left) / 2))
        goodput = {i: sum(run.goodput_per_s for run in self.runs[i]) for i in self._left}
        self._left = sorted(self._left, key=lambda i: -goodput[i])[:kept]
        self._screening = len(self._left) > FINALISTS

    def _decide(self) -> bool:
        """Set the result, or leave who may still be the best. Whether own settings are needed."""
        rounds = len(self._deciding)
        ratios = {i: self._ratio(i, 0) for i in self._left}
        best = max(self._left, key=lambda i: fmean(_logs(one[i] for one in self._deciding)))
        verdict = _verdict(ratios[best])
        against = {i: self._ratio(i, best) for i in self._left if i != best}
        rivals = [i for i, ratio in against.items() if _may_exceed(ratio, WORTH)]
        if verdict is Verdict.BETTER and (not rivals or rounds >= MOST_PAIRS):
            self.result = Result(Verdict.BETTER, self.candidates[best], ratios[best])
        elif not any(_may_exceed(ratio, WORTH) for ratio in ratios.values()):
            self.result = Result(Verdict.NOTHING, self.candidates[0], ratios[best])
        elif rounds >= MOST_PAIRS:
            self.result = Result(Verdict.UNKNOWN, self.candidates[0], ratios[best])
        self._left = [
            i
            for i in self._left
            if i == best or (_may_exceed(against[i], 1.0) and _may_exceed(ratios[i], WORTH))
        ]
        return verdict is not Verdict.BETTER

    def _ratio(self, index: int, other: int) -> Ratio:
        """Of two candidates, by the rounds in which both were measured."""
        both = [one for one in self._deciding if index in one and other in one]
        return ratio_of([(one[other], one[index]) for one in both])


def _logs(goodput: Iterable[float]) -> list[float]:
    return [math.log(value + SMOOTH_PER_S) for value in goodput]


def ratio_of(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The geometric mean of B over A, with a paired t interval on the logarithms."""
    if not pairs:
        return Ratio(1.0, None, None, 0)
    first, second = _logs(a for a, _ in pairs), _logs(b for _, b in pairs)
    logs = [b - a for a, b in zip(first, second, strict=True)]
    middle, n = fmean(logs), len(logs)
    if n < 2:
        return Ratio(math.exp(middle), None, None, n)
    reach = t_quantile(1 - (1 - CONFIDENCE) / 2, n - 1) * stdev(logs) / math.sqrt(n)
    return Ratio(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), n)


def _may_exceed(found: Ratio, limit: float) -> bool:
    """Whether the interval does not rule it out."""
    return found.high is None or found.high >= limit


def _verdict(found: Ratio) -> Verdict | None:
    """What a ratio says; None: not yet anything."""
    if found.low is None or found.high is None:
        return None
    if found.low > 1.0 and found.value >= WORTH:
        return Verdict.BETTER
    if found.high < WORTH:
        return Verdict.NOTHING
    return None
