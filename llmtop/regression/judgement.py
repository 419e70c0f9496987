"""Is the new engine worse than the old one by more than the budget? Runs are the unit.

Each measure is judged on the logarithm of its values, so that intervals are ratios. Runs in turn
(old, new, new, old) give a paired t interval. Runs of a baseline that was recorded before give
Welch's interval (B. L. Welch, Biometrika 34, 1947); a baseline of a single run borrows the spread
of the new runs. The error of 5 % is shared out over all measures (Bonferroni), one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean, stdev

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile
from llmtop.regression.budget import Budget

ERROR = 0.05  # of the answer "worse" and of the answer "as good", over all measures together
MOST_RUNS = 100  # to ask for more would be no advice
LEAST_SPREAD = 1e-4  # of log values: 3 runs that agree to the last digit are luck


class Verdict(StrEnum):
    """What can be said of one measure, or of all together."""

    GOOD = "as good"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


class Judgement(Struct, frozen=True):
    """One measure. old, new: geometric means. ratio: new / old with its interval, None: not known.

    old_runs, new_runs: runs that count. noise: the spread of one run as a ratio of at least 1.
    runs_needed: new runs that would settle it at this spread; None: settled, or more than 100.
    """

    budget: Budget
    verdict: Verdict
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    old_runs: int = 0
    new_runs: int = 0
    noise: float | None = None
    runs_needed: int | None = None


class _Estimate(Struct, frozen=True):
    """The mean log ratio, its standard error, and its degrees of freedom. spread: of one run."""

    middle: float
    error: float
    freedom: float
    spread: float


def judge_pairs(budget: Budget, pairs: Sequence[tuple[float, float]], among: int) -> Judgement:
    """Judge runs in turn. pairs: (old, new). among: measures judged together."""
    logs = [math.log(new / old) for old, new in pairs]
    if len(logs) < 2:
        return Judgement(budget, Verdict.CANNOT_TELL, old_runs=len(logs), new_runs=len(logs))
    spread = max(stdev(logs), LEAST_SPREAD)
    found = _Estimate(
        fmean(logs), spread / math.sqrt(len(logs)), len(logs) - 1, spread / math.sqrt(2)
    )
    return _judged(budget, found, among, [p[0] for p in pairs], [p[1] for p in pairs], paired=True)


def judge_runs(budget: Budget, old: Sequence[float], new: Sequence[float], among: int) -> Judgement:
    """Judge new runs against recorded ones."""
    if not old or len(new) < 2:
        return Judgement(budget, Verdict.CANNOT_TELL, old_runs=len(old), new_runs=len(new))
    ours = [math.log(value) for value in new]
    theirs = [math.log(value) for value in old]
    spread = max(stdev(ours), LEAST_SPREAD)
    middle = fmean(ours) - fmean(theirs)
    if len(theirs) < 2:
        error = spread * math.sqrt(1 / len(ours) + 1)
        found = _Estimate(middle, error, len(ours) - 1, spread)
    else:
        other = max(stdev(theirs), LEAST_SPREAD)
        a, b = spread**2 / len(ours), other**2 / len(theirs)
        freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
        pooled = math.sqrt((spread**2 + other**2) / 2)
        found = _Estimate(middle, math.sqrt(a + b), freedom, pooled)
    return _judged(budget, found, among, old, new, paired=False)


def overall(judgements: Sequence[Judgement]) -> Verdict:
    """One measure that is worse makes all worse; all must be as good for the engine to be."""
    verdicts = {one.verdict for one in judgements}
    if Verdict.WORSE in verdicts:
        return Verdict.WORSE
    return Verdict.GOOD if verdicts == {Verdict.GOOD} else Verdict.CANNOT_TELL


def _judged(
    budget: Budget,
    found: _Estimate,
    among: int,
    old: Sequence[float],
    new: Sequence[float],
    *,
    paired: bool,
) -> Judgement:
    probability = 1 - ERROR / among
    reach = t_quantile(probability, found.freedom) * found.error
    low, high = found.middle - reach, found.middle + reach
    limit = math.log(budget.limit)
    if budget.higher_is_better:
        worse, good = high < limit, low > limit
    else:
        worse, good = low > limit, high < limit
    verdict = Verdict.WORSE if worse else Verdict.GOOD if good else Verdict.CANNOT_TELL
    needed = None
    if verdict is Verdict.CANNOT_TELL:
        needed = _needed(abs(found.middle - limit), found.spread, probability,
                         None if paired else len(old))  # fmt: skip
    return Judgement(
        budget, verdict, _mean(old), _mean(new), math.exp(found.middle), math.exp(low),
        math.exp(high), len(old), len(new), math.exp(found.spread), needed,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))


def _needed(distance: float, spread: float, probability: float, old: int | None) -> int | None:
    """New runs after which the interval would exclude the limit, were the difference as seen.

    old: recorded runs, which stay as many; None: an old run for each new one.
    """
    for runs in range(3, MOST_RUNS + 1):
        error = spread * math.sqrt(1 / runs + 1 / (runs if old is None else old))
        if t_quantile(probability, runs - 1) * error < distance:
            return runs
    return None
