"""Chooses the next level: doubling, then bisection. Feed results, get levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct, field

from llmtop.loadgen.experiments import knee
from llmtop.loadgen.experiments.isotonic import falling
from llmtop.loadgen.experiments.knee import Knee, Point
from llmtop.loadgen.statistics.wilson import ShareVerdict, judge
from llmtop.values import replace

SHARES = (0.90, 0.95, 0.99)
MAIN_SHARE = 0.95
START = 4  # lower levels add no information, and take as long to measure
RESOLUTION = 1.125  # smaller ratios of levels are below the noise of throughput
KNEE_RESOLUTION = 1.25
MOST = 24  # levels in total, including repeats
MOST_FOR_KNEE = 4
HOPELESS = 0.5  # below this share of requests in time a level certainly fails
FLAT = 1.05  # a doubling that gives less has reached the best throughput


class Trial(Struct, frozen=True):
    """The result of one level. met of n requests were in time; valid: the client could keep up.

    error: relative standard error of the throughput, None if unknown. stalled: no request ended.
    """

    level: int
    met: int
    n: int
    throughput: float
    error: float | None = None
    valid: bool = True
    stalled: bool = False


class End(StrEnum):
    """How a search for one share ended."""

    FOUND = "found"  # a highest level that holds, and a level above that does not
    BEYOND = "beyond"  # holds up to the highest level that could be tested
    NEVER = "never"  # not even the lowest level holds
    UNDECIDED = "undecided"  # too few requests anywhere to say


class Answer(Struct, frozen=True):
    """The highest load at which ``share`` of the requests are in time.

    level: the highest tested level that holds, or None. fails: the lowest tested level above it
    that fails. undecided: tested levels between them with neither result. cliff: just above
    ``level`` fewer than half of the requests are in time.
    """

    share: float
    end: End
    level: int | None
    fails: int | None
    undecided: tuple[int, ...] = ()
    cliff: bool = False


class Search(Struct):
    """The state of one search. Get ``next_level``, measure it, ``feed`` the result.

    with_limits: search for limits; else only for the knee. top: the highest level to try. It
    returns at most ``most`` levels.
    """

    top: int = 1024
    start: int = START
    with_limits: bool = True
    shares: Sequence[float] = SHARES
    main_share: float = MAIN_SHARE
    most: int = MOST
    trials: list[Trial] = field(default_factory=list)
    _climbing: bool = True
    _knee_tries: int = 0

    def feed(self, trial: Trial) -> None:
        """Add one level's result. Counts of a repeated level are summed."""
        self.trials.append(trial)
        if self._climbing:
            self._climbing = self._climb_on(trial)

    @property
    def ceiling(self) -> int | None:
        """The lowest level that the client could not sustain, twice; None if it sustained all."""
        counts: dict[int, int] = {}
        for one in self.trials:
            if not one.valid:
                counts[one.level] = counts.get(one.level, 0) + 1
        good = {one.level for one in self.trials if one.valid}
        bad = [level for level, count in counts.items() if count >= 2 and level not in good]
        return min(bad, default=None)

    def next_level(self) -> int | None:
        """The next level; None when the answer is known or the budget is spent."""
        if len(self.trials) >= self.most:
            return None
        if not self.trials:
            return min(self.start, self.top)
        last = self.trials[-1]
        if not last.valid and self.ceiling is None and not self._good(last.level):
            return last.level  # repeat: a single disturbance of a busy machine is not a verdict
        if self._climbing:
            return min(self.top, 2 * last.level)
        if self.with_limits:
            main = sorted(self.shares, key=lambda share: share != self.main_share)
            for share in main:
                level = self._bisect(share)
                if level is not None:
                    return level
        level = self._near_knee()
        if level is not None:
            self._knee_tries += 1
        return level

    def levels(self) -> list[Trial]:
        """One entry per level, lowest first:

        repeats summed, levels limited by the client omitted.
        """
        found: dict[int, Trial] = {}
        for one in self.trials:
            before = found.get(one.level)
            if not one.valid:
                continue
            if before is None:
                found[one.level] = one
            else:
                found[one.level] = replace(
                    one,
                    met=one.met + before.met,
                    n=one.n + before.n,
                    throughput=(one.throughput + before.throughput) / 2,
                    error=None if one.error is None else one.error / 2**0.5,
                )
        return [found[level] for level in sorted(found)]

    def verdicts(self, share: float) -> dict[int, ShareVerdict]:
        """Each tested level's verdict, assuming only that more load never gives more in time.

        Levels in the wrong order are pooled. Successes of higher levels in a pool count for a lower
        one, and failures of lower levels count against a higher one, never the reverse.
        """
        levels = self.levels()
        counted = [one for one in levels if one.n]
        smooth = falling([one.met / one.n for one in counted], [float(one.n) for one in counted])
        found = {
            one.level: ShareVerdict.FAIL if one.stalled else ShareVerdict.UNDECIDED
            for one in levels
            if not one.n
        }
        for i, one in enumerate(counted):
            pool = [other for j, other in enumerate(counted) if smooth[j] == smooth[i]]
            for held, mine in (
                (ShareVerdict.PASS, [other for other in pool if other.level >= one.level]),
                (ShareVerdict.FAIL, [other for other in pool if other.level <= one.level]),
            ):
                counts = sum(other.met for other in mine), sum(other.n for other in mine)
                if judge(*counts, share) is held:
                    found[one.level] = held
        return {one.level: found.get(one.level, ShareVerdict.UNDECIDED) for one in levels}

    def answer(self, share: float) -> Answer:
        """The present answer for one share."""
        verdicts = self.verdicts(share)
        fails = min(
            (level for level, held in verdicts.items() if held is ShareVerdict.FAIL), default=None
        )
        holds = [
            level
            for level, held in verdicts.items()
            if held is ShareVerdict.PASS and (fails is None or level < fails)
        ]
        level = max(holds, default=None)
        between = tuple(
            at
            for at, held in sorted(verdicts.items())
            if held is ShareVerdict.UNDECIDED
            and at > (level or 0)
            and (fails is None or at < fails)
        )
        if level is not None and fails is not None:
            end = End.FOUND
        elif level is not None:
            end = End.UNDECIDED if between else End.BEYOND
        elif fails is not None and not between:
            end = End.NEVER
        else:
            end = End.UNDECIDED
        beyond = next((one for one in self.levels() if one.level == fails), None)
        cliff = (
            end is End.FOUND
            and beyond is not None
            and beyond.met < HOPELESS * max(1, beyond.n)
            and beyond.level <= KNEE_RESOLUTION * (level or 0)
        )
        return Answer(share, end, level, fails, between, cliff)

    def knee(self) -> Knee | None:
        """The present knee of the throughput curve."""
        return knee.find([Point(one.level, one.throughput, one.error) for one in self.levels()])

    @property
    def left(self) -> int:
        """Estimated number of remaining levels, for a progress line; at least 1."""
        guess = 0
        if self._climbing:
            level = self.trials[-1].level if self.trials else self.start // 2
            while level < self.top:
                level *= 2
                guess += 1
            guess += (3 if self.with_limits else 0) + 2
        else:
            if self.with_limits:
                answer = self.answer(self.main_share)
                guess += _halvings(answer.level or 0, answer.fails, RESOLUTION)
            found = self.knee()
            if found is not None:
                near = _halvings(self._below(found.level), found.level, KNEE_RESOLUTION)
                guess += min(near, MOST_FOR_KNEE - self._knee_tries)
        return max(1, min(guess, self.most - len(self.trials)))

    def _good(self, level: int) -> bool:
        return any(one.valid and one.level == level for one in self.trials)

    def _climb_on(self, trial: Trial) -> bool:
        if not trial.valid:
            return self.ceiling is None
        if trial.level >= self.top or trial.stalled:
            return False
        hopeless = trial.met < HOPELESS * trial.n
        before = [one for one in self.levels() if one.level < trial.level]
        flat = bool(before) and trial.throughput < FLAT * before[-1].throughput
        if not self.with_limits:
            return not flat
        failed = self.verdicts(min(self.shares))[trial.level] is ShareVerdict.FAIL
        return not (failed and (flat or hopeless))

    def _bisect(self, share: float) -> int | None:
        answer = self.answer(share)
        low = answer.level or 0
        if answer.undecided:
            # Twice the requests decide most levels; after two tries a level stays undecided.
            if self._tries(answer.undecided[0]) < 2 and self._worth_more(
                answer.undecided[0], share
            ):
                return answer.undecided[0]
            if share != self.main_share:
                return None
        high = min([at for at in (answer.fails, *answer.undecided) if at is not None], default=None)
        if high is None or high - low <= 1 or high <= RESOLUTION * low:
            return None
        middle = (low + high) // 2
        return middle if self._tries(middle) == 0 else None

    def _worth_more(self, level: int, share: float) -> bool:
        """Whether the same number of requests again could decide, with the same results."""
        one = next((one for one in self.levels() if one.level == level), None)
        return (
            one is not None and judge(2 * one.met, 2 * one.n, share) is not ShareVerdict.UNDECIDED
        )

    def _near_knee(self) -> int | None:
        found = self.knee()
        if found is None or self._knee_tries >= MOST_FOR_KNEE:
            return None
        low, high = self._below(found.level), found.level
        if high - low <= 1 or high <= KNEE_RESOLUTION * low:
            return None
        middle = (low + high) // 2
        return middle if self._tries(middle) == 0 else None

    def _below(self, level: int) -> int:
        return max((one.level for one in self.levels() if one.level < level), default=0)

    def _tries(self, level: int) -> int:
        return sum(one.level == level for one in self.trials)


def _halvings(low: int, high: int | None, resolution: float) -> int:
    """The number of remaining bisections between two levels."""
    if high is None or high - low <= 1 or high <= resolution * low:
        return 0
    return math.ceil(math.log2((high - low) / max(1.0, (resolution - 1) * low)))
