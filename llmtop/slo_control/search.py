"""The search of ``tune``: which settings to measure next, and when the rounds decide.

In a round the operator's own settings and each candidate that is left are measured once, under the
same arrivals. The first rounds leave at least half of the candidates, at last two. Then rounds
follow, forth and back (A B C, C B A), until intervals decide (``pairs.py``).

The rounds are looked at one after the other, and the best of several candidates is claimed. So
"better" needs a wider interval than "nothing to gain", which is an equivalence test: the interval
ends below ``WORTH``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean

from msgspec import Struct

from llmtop.slo_control.pairs import Ratio, ratio, spread

LEAST_PAIRS, MOST_PAIRS = 3, 8
ENOUGH = 5  # rounds that show whether those up to MOST_PAIRS can decide
LUCK = 0.65  # how much narrower an interval can become than its pairs promise
FINALISTS = 2
WORTH = 1.05
"""A smaller gain counts as none: it is not worth a change."""
SURE = 0.99  # confidence of the interval that "better" needs
CLEAR = 1.5
"""Own settings that are so much worse after two rounds are not measured any more."""
FULL = 0.99  # of the requests in time: there is nothing to gain

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
        self._screened: list[dict[int, float]] = []  # the same of each round that screens
        self._deciding: list[dict[int, float]] = []  # and of each one that decides
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
            gain = Ratio(1.0, 1.0, 1.0 / measured.share, 0) if measured.n else None
            verdict = Verdict.NOTHING if measured.n else Verdict.UNKNOWN  # no request came
            self.result = Result(verdict, self.candidates[0], gain)
        elif not self._queue:
            self._end_round()

    def drop(self) -> None:
        """The run that ``next`` asked for broke the SLO at once: it counts as none in time."""
        self.take(Measured(0.0, 0.0, 0))

    def finish(self) -> None:
        """No time is left for another run: decide by what was measured."""
        if self.result is not None:
            return
        # Also the rounds that chose who is left: that favours them a little, and "better" needs
        # more than that.
        rounds = [*self._screened, *self._deciding, self._now]
        self._deciding = [one for one in rounds if one]
        self._decide(over=True)

    def _end_round(self) -> None:
        found, self._now = self._now, {}
        with_own = True
        if self._screening:
            self._screened.append(found)
            self._screen()
        else:
            self._deciding.append(found)
            with_own = self._decide(over=len(self._deciding) >= MOST_PAIRS)
        if not self._left:
            self.result = Result(Verdict.NOTHING, self.candidates[0], None)
        self.round += 1
        members = [0, *self._left] if with_own else list(self._left)
        self._queue = members if len(self._deciding) % 2 == 0 else members[::-1]

    def _screen(self) -> None:
        """The better half continues; all remaining candidates met the same arrivals."""
        kept = max(FINALISTS, math.ceil(len(self._left) / 2))
        goodput = {i: sum(run.goodput_per_s for run in self.runs[i]) for i in self._left}
        self._left = sorted(self._left, key=lambda i: -goodput[i])[:kept]
        self._screening = len(self._left) > FINALISTS

    def _decide(self, *, over: bool) -> bool:
        """Set the result, or leave who may still be the best. Whether own settings are needed.
        over: no round follows."""
        rounds = len(self._deciding)
        seen = [i for i in self._left if any(i in one for one in self._deciding)]
        if (rounds < LEAST_PAIRS - 1 and not over) or not seen:
            if over:
                nothing = ratio((), 0, 0)
                self.result = Result(Verdict.UNKNOWN, self.candidates[0], nothing)
            return True
        common = spread(self._deciding, [0, *self._left])
        best = max(seen, key=lambda i: fmean(one[i] for one in self._deciding if i in one))
        sure = ratio(self._deciding, best, 0, common, SURE)
        if rounds < LEAST_PAIRS and not over:
            return sure.low is None or sure.low < CLEAR
        better = sure.low is not None and sure.low > 1.0 and sure.value >= WORTH
        gains = {i: ratio(self._deciding, i, 0, common) for i in self._left}
        against = {i: ratio(self._deciding, i, best, common) for i in self._left if i != best}
        rivals = [i for i, one in against.items() if _may_exceed(one, WORTH)]
        if better and (over or not rivals):
            self.result = Result(Verdict.BETTER, self.candidates[best], sure)
        elif not any(_may_exceed(one, WORTH) for one in gains.values()):
            self.result = Result(Verdict.NOTHING, self.candidates[0], gains[best])
        elif over or (not better and rounds >= ENOUGH and _undecidable(sure, gains[best])):
            self.result = Result(Verdict.UNKNOWN, self.candidates[0], gains[best])
        self._left = [
            i
            for i in self._left
            if i == best or (_may_exceed(against[i], 1.0) and _may_exceed(gains[i], WORTH))
        ]
        return not better


def _undecidable(sure: Ratio, gain: Ratio) -> bool:
    """Whether the intervals will be too wide even after the last round: they narrow with the number
    of pairs, by its root and with luck a little more."""
    if sure.low is None or gain.high is None:
        return gain.high is None and not (sure.low and sure.low > 0)
    narrower = LUCK * math.sqrt(sure.pairs / MOST_PAIRS)
    low = sure.value - narrower * (sure.value - sure.low)
    high = gain.value + narrower * (gain.high - gain.value)
    return high >= WORTH and (low <= 1.0 or sure.value < WORTH)


def _may_exceed(found: Ratio, limit: float) -> bool:
    """Whether the interval does not rule it out."""
    return found.high is None or found.high >= limit
