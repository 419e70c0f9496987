"""The search of ``tune``: decides which settings to measure next, and when to stop.

A round measures the operator's own settings and each remaining candidate once, with the same
arrivals. The first rounds screen: each keeps the better half of the candidates, down to two. The
following rounds run in alternating order (A B C, C B A) until the intervals decide (``pairs``).

The data is tested after every round, and the best of several candidates is selected. Both raise the
chance of a wrong "better". So "better" needs a higher confidence than "nothing to gain". The
verdict "nothing to gain" is an equivalence test: the interval must end below ``LEAST_GAIN``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean

from msgspec import Struct

from llmtop.slo_control.pairs import Ratio, ratio, spread

LEAST_PAIRS, MOST_PAIRS = 3, 8
FUTILITY_ROUNDS = 5  # after so many rounds, a search that cannot decide by MOST_PAIRS stops
# An interval narrows with the square root of the number of pairs. A lower variance in the later
# rounds can narrow it further, at most by this factor.
MOST_NARROWING = 0.65
FINALISTS = 2
LEAST_GAIN = 1.05
"""A ratio of goodput below it counts as no gain: it does not justify a change."""
BETTER_CONFIDENCE = 0.99  # of the interval that "better" needs
CLEAR_GAIN = 1.5
"""The own settings are not measured again if a candidate is better by this ratio after 2 rounds."""
ALL_IN_TIME = 0.99  # share of the requests within the limits from which nothing can be gained

Settings = Mapping[str, int]
"""Values by role, as in ``candidates``."""


class Verdict(StrEnum):
    """The verdict of the search on the best candidate against the own settings."""

    BETTER = "better"
    NOTHING = "nothing to gain"
    UNKNOWN = "cannot tell"


class Measured(Struct, frozen=True):
    """The result of one run.

    goodput_per_s: requests within the limits, per second. share: their share of all requests that
    the load was to send, 0..1. n: number of requests. settled: the run was long compared to its
    requests. In a short open-loop run, the queue of an overloaded engine has not grown yet, so all
    requests can be in time.
    """

    goodput_per_s: float
    share: float
    n: int
    settled: bool = True


class Result(Struct, frozen=True):
    """The result of a search. settings: the best ones for the verdict "better", else the operator's
    own. ratio: of the best candidate's goodput to that of the own settings, None for unknown."""

    verdict: Verdict
    settings: Settings
    ratio: Ratio | None


class Search:
    """Chooses the runs of ``tune`` one by one.

    Call ``next`` for the settings to measure and pass the measurement to ``take``, until ``next``
    returns None. Then ``result`` is set. Candidate 0 is the operator's own settings. round: the
    number of the round of the next run. Runs of the same round are compared, so the caller must
    send the same arrivals to them.
    """

    def __init__(self, own: Settings, candidates: Sequence[Settings]) -> None:
        self.candidates: list[Settings] = [own, *candidates]
        self.runs: list[list[Measured]] = [[] for _ in self.candidates]
        self.round = 0
        self.result: Result | None = None
        self._left: list[int] = list(range(1, len(self.candidates)))
        self._queue: list[int] = [0, *self._left]
        self._now: dict[int, float] = {}  # goodput by candidate, in the present round
        self._screened: list[dict[int, float]] = []  # the same for each finished screening round
        self._deciding: list[dict[int, float]] = []  # the same for each finished deciding round
        self._screening = True

    @property
    def left(self) -> int:
        """The approximate number of runs that remain."""
        if self.result is not None:
            return 0
        size = 1 + min(len(self._left), FINALISTS)
        rounds = LEAST_PAIRS - len(self._deciding) - (not self._screening)
        return len(self._queue) + size * max(0, rounds)

    def next(self) -> int | None:
        """The index of the candidate to measure now; None when ``result`` is decided."""
        return self._queue[0] if self.result is None else None

    def take(self, measured: Measured) -> None:
        """Add the result of the run that ``next`` asked for."""
        index = self._queue.pop(0)
        self.runs[index].append(measured)
        self._now[index] = measured.goodput_per_s
        if index == 0 and not self.round and measured.share >= ALL_IN_TIME and measured.settled:
            gain = Ratio(1.0, 1.0, 1.0 / measured.share, 0) if measured.n else None
            verdict = Verdict.NOTHING if measured.n else Verdict.UNKNOWN  # no request arrived
            self.result = Result(verdict, self.candidates[0], gain)
        elif not self._queue:
            self._end_round()

    def drop(self) -> None:
        """Add a run that was stopped early because it broke the SLO. Its goodput counts as 0."""
        self.take(Measured(0.0, 0.0, 0))

    def finish(self) -> None:
        """Decide from the runs so far, because no time is left for another one."""
        if self.result is not None:
            return
        # The screening rounds are used as well. They selected the remaining candidates, which
        # biases the estimate a little in their favour. BETTER_CONFIDENCE is high enough for that.
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
        """Keep the better half of the candidates, by their total goodput in all rounds."""
        kept = max(FINALISTS, math.ceil(len(self._left) / 2))
        goodput = {i: sum(run.goodput_per_s for run in self.runs[i]) for i in self._left}
        self._left = sorted(self._left, key=lambda i: -goodput[i])[:kept]
        self._screening = len(self._left) > FINALISTS

    def _decide(self, *, over: bool) -> bool:
        """Set the result, or keep the candidates that may still be the best.

        over: no round follows. Returns whether the next round must measure the own settings.
        """
        rounds = len(self._deciding)
        seen = [i for i in self._left if any(i in one for one in self._deciding)]
        if (rounds < LEAST_PAIRS - 1 and not over) or not seen:
            if over:
                nothing = ratio((), 0, 0)
                self.result = Result(Verdict.UNKNOWN, self.candidates[0], nothing)
            return True
        common = spread(self._deciding, [0, *self._left])
        best = max(seen, key=lambda i: fmean(one[i] for one in self._deciding if i in one))
        sure = ratio(self._deciding, best, 0, common, BETTER_CONFIDENCE)
        if rounds < LEAST_PAIRS and not over:
            return sure.low is None or sure.low < CLEAR_GAIN
        better = sure.low is not None and sure.low > 1.0 and sure.value >= LEAST_GAIN
        gains = {i: ratio(self._deciding, i, 0, common) for i in self._left}
        against = {i: ratio(self._deciding, i, best, common) for i in self._left if i != best}
        rivals = [i for i, one in against.items() if _may_exceed(one, LEAST_GAIN)]
        if better and (over or not rivals):
            self.result = Result(Verdict.BETTER, self.candidates[best], sure)
        elif not any(_may_exceed(one, LEAST_GAIN) for one in gains.values()):
            self.result = Result(Verdict.NOTHING, self.candidates[0], gains[best])
        elif over or (not better and rounds >= FUTILITY_ROUNDS and _is_futile(sure, gains[best])):
            self.result = Result(Verdict.UNKNOWN, self.candidates[0], gains[best])
        self._left = [
            i
            for i in self._left
            if i == best or (_may_exceed(against[i], 1.0) and _may_exceed(gains[i], LEAST_GAIN))
        ]
        return not better


def _is_futile(sure: Ratio, gain: Ratio) -> bool:
    """Whether the intervals will be too wide even after ``MOST_PAIRS`` rounds.

    sure, gain: the best candidate over the own settings, with the interval for "better" and with
    the usual one.
    """
    if sure.low is None or gain.high is None:
        return gain.high is None and not (sure.low and sure.low > 0)
    narrower = MOST_NARROWING * math.sqrt(sure.pairs / MOST_PAIRS)
    low = sure.value - narrower * (sure.value - sure.low)
    high = gain.value + narrower * (gain.high - gain.value)
    return high >= LEAST_GAIN and (low <= 1.0 or sure.value < LEAST_GAIN)


def _may_exceed(found: Ratio, limit: float) -> bool:
    """Whether the interval does not exclude a ratio of ``limit`` or more."""
    return found.high is None or found.high >= limit
