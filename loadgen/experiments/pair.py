"""Two consecutive runs, and the measures for which they count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from llmtop.loadgen.core.measures import Verdict
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.paired_test import Measure


class PairResult(Struct, frozen=True):
    """Two consecutive runs. arms: the setting of each; noise: A against itself."""

    noise: bool
    arms: tuple[str, str]
    runs: tuple[LevelResult, LevelResult]

    @property
    def client_bound(self) -> str:
        """Why the pair counts for no measure because of the client; "" for another reason, or if
        one counts."""
        reasons = [self.spoilt(measure) for measure in Measure]
        return reasons[0] if all(reasons) else ""

    @property
    def counted(self) -> bool:
        """Whether it counts for any measure."""
        return any(self.counts(measure) for measure in Measure)

    @property
    def left_out(self) -> tuple[Measure, ...]:
        """The measures that this client may have distorted in one of the runs."""
        return tuple(measure for measure in Measure if self.spoilt(measure))

    def spoilt(self, measure: Measure) -> str:
        """The client's possible error of a measure in one of them; "" if negligible."""
        for run in self.runs:
            verdict = _verdict(run, measure)
            if verdict is not None and not verdict.valid:
                return verdict.words
            if not run.health.measures and not run.valid:
                return run.health.verdict
        return ""

    def counts(self, measure: Measure, difference: float = 0.0) -> bool:
        """Whether requests ended in both runs, and the client's error of the measure is negligible
        or smaller than the ``difference`` found, as a share."""
        if not all(run.ok > 0 for run in self.runs):
            return False
        return not self.spoilt(measure) or self._share(measure) < difference

    def values(self, measure: Measure) -> tuple[float, float] | None:
        """(A, B), or the first and the second run of a noise pair; None if one has no value."""
        first, second = (measure.of(run) for run in self.runs)
        if first is None or second is None:
            return None
        return (second, first) if self.arms == ("B", "A") else (first, second)

    def _share(self, measure: Measure) -> float:
        verdicts = [_verdict(run, measure) for run in self.runs]
        return max(math.inf if one is None else one.share for one in verdicts)


def countable(pairs: Sequence[PairResult], measure: Measure) -> tuple[list[PairResult], int]:
    """The pairs that count for a measure, and the number of the others.

    The difference is that of all pairs together. A test of each pair by its own difference would
    select the pairs that happen to differ.
    """
    logs = [
        math.log(b / a)
        for pair in pairs
        if (found := pair.values(measure)) is not None
        for a, b in [found]
    ]
    difference = math.expm1(abs(fmean(logs))) if logs else 0.0
    counted = [pair for pair in pairs if pair.counts(measure, difference)]
    return counted, sum(bool(pair.spoilt(measure)) for pair in pairs if pair not in counted)


def _verdict(run: LevelResult, measure: Measure) -> Verdict | None:
    return run.verdict(*measure.judged)
