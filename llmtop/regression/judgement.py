"""Judges whether the new engine is worse than the old one by more than the budget.

One run gives one value. Each measure is judged on the logarithm of its values, so its interval is
an interval of the ratio new / old. Two designs are possible:

- Runs in turn (old, new, new, old) give a paired t interval.
- Runs of a baseline that was recorded before give Welch's interval (B. L. Welch, Biometrika 34,
  1947). For a baseline of a single run, the standard deviation of the new runs is used.

The one-sided error probability of 5 % is divided by the number of measures (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean, stdev

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile
from llmtop.regression.budget import Budget

ERROR = 0.05  # probability of a wrong "worse", and of a wrong "as good", over all measures together
MOST_RUNS = 100  # more runs are not recommended to anybody
# Lower bound of the standard deviation of log values. A few runs can agree by chance to the last
# digit; a standard deviation of 0 would then give an interval of no width.
LEAST_SPREAD = 1e-4


class Verdict(StrEnum):
    """The verdict on one measure, or on all together."""

    GOOD = "as good"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


class Judgement(Struct, frozen=True):
    """The judgement of one measure. None means unknown.

    old, new: geometric means over the runs. ratio: new / old. low, high: the ends of its interval.
    old_runs, new_runs: runs that count. noise: the standard deviation of one run as a ratio of at
    least 1, exp(s) of the log values. runs_needed: how many new runs would be enough at this noise;
    None where the verdict is decided, or more than ``MOST_RUNS`` would be needed.
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
    """An estimate of the log ratio: mean, standard error, degrees of freedom. spread: the standard
    deviation of one run."""

    middle: float
    error: float
    freedom: float
    spread: float


def judge_pairs(
    budget: Budget, pairs: Sequence[tuple[float, float]], measure_count: int
) -> Judgement:
    """Judge runs in turn. pairs: (old, new). measure_count: of the measures judged together."""
    logs = [math.log(new / old) for old, new in pairs]
    if len(logs) < 2:
        return Judgement(budget, Verdict.CANNOT_TELL, old_runs=len(logs), new_runs=len(logs))
    spread = max(stdev(logs), LEAST_SPREAD)
    found = _Estimate(
        fmean(logs), spread / math.sqrt(len(logs)), len(logs) - 1, spread / math.sqrt(2)
    )
    old, new = [p[0] for p in pairs], [p[1] for p in pairs]
    return _judged(budget, found, measure_count, old, new, paired=True)


def judge_runs(
    budget: Budget, old: Sequence[float], new: Sequence[float], measure_count: int
) -> Judgement:
    """Judge new runs against recorded ones. measure_count: of the measures judged together."""
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
    return _judged(budget, found, measure_count, old, new, paired=False)


def overall(judgements: Sequence[Judgement]) -> Verdict:
    """The verdict on all measures: worse if one is worse, as good if all are as good."""
    verdicts = {one.verdict for one in judgements}
    if Verdict.WORSE in verdicts:
        return Verdict.WORSE
    return Verdict.GOOD if verdicts == {Verdict.GOOD} else Verdict.CANNOT_TELL


def _judged(
    budget: Budget,
    found: _Estimate,
    measure_count: int,
    old: Sequence[float],
    new: Sequence[float],
    *,
    paired: bool,
) -> Judgement:
    probability = 1 - ERROR / measure_count
    half_width = t_quantile(probability, found.freedom) * found.error
    low, high = found.middle - half_width, found.middle + half_width
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
    """How many new runs would make the interval exclude the limit.

    Assumes that the difference and the spread stay as measured. distance: from the estimate to the
    limit, in log values. old: the number of recorded runs; None where each new run is paired with
    an old one. Returns None for more than ``MOST_RUNS``.
    """
    for runs in range(3, MOST_RUNS + 1):
        error = spread * math.sqrt(1 / runs + 1 / (runs if old is None else old))
        if t_quantile(probability, runs - 1) * error < distance:
            return runs
    return None
