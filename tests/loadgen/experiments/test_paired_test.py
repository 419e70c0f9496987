import math
import random

import pytest

from llmtop.loadgen.experiments.paired_test import (
    Measure,
    PairedRatio,
    Verdict,
    judge,
    noise_floor,
    order,
)

Series = list[float]


class Machine:
    """Log of one measure, run after run, in per cent: AR(1) drift of sd 2, noise of sd 1."""

    def __init__(self, seed: int, memory: float = 0.9) -> None:
        self._rng = random.Random(seed)
        self._memory = memory
        self._drift = 2 * self._rng.gauss(0, 1)

    def run(self) -> float:
        step = 2 * math.sqrt(1 - self._memory**2) * self._rng.gauss(0, 1)
        self._drift = self._memory * self._drift + step
        return (self._drift + self._rng.gauss(0, 1)) / 100


def compare(seed: int, pairs: int, effect: float, memory: float = 0.9) -> list[PairedRatio]:
    """All measures of a comparison on a machine that drifts for each of them in its own way."""
    findings = []
    for number, measure in enumerate(Measure):
        machine = Machine(1000 * seed + number, memory)
        values = []
        for first, _ in order(pairs):
            runs = {}
            for arm in (first, "B" if first == "A" else "A"):
                runs[arm] = 100 * math.exp(machine.run() + (effect if arm == "B" else 0))
            values.append((runs["A"], runs["B"]))
        findings.append(judge(measure, values, among=len(Measure)))
    return findings


def winners(comparisons: range, pairs: int, memory: float) -> int:
    """How many comparisons of A with A call a winner in any of the measures."""
    return sum(
        any(finding.verdict is not Verdict.CANNOT_TELL for finding in findings)
        for findings in (compare(seed, pairs, 0.0, memory) for seed in comparisons)
    )


@pytest.mark.parametrize("pairs", [4, 8, 12])
def test_a_against_a_calls_a_winner_in_at_most_8_percent(pairs: int) -> None:
    assert winners(range(200), pairs, memory=0.9) <= 16


@pytest.mark.parametrize("memory", [0.5, 0.99])
def test_the_same_when_the_drift_is_quicker_or_slower(memory: float) -> None:
    assert winners(range(600), 8, memory) <= 48


def test_ten_percent_are_found_within_eight_pairs() -> None:
    found = [compare(seed, 8, math.log(1.10)) for seed in range(200)]
    for number, verdict in ((0, Verdict.BETTER), (1, Verdict.WORSE)):
        assert sum(findings[number].verdict is verdict for findings in found) >= 198
    inside = sum(
        finding.low is not None and finding.high is not None and finding.low <= 1.1 <= finding.high
        for findings in found
        for finding in findings
    )
    assert inside >= 0.97 * 800


def test_the_interval_is_the_paired_t_of_the_textbook() -> None:
    # Logs of the ratios 0.1, 0.2, 0.3: mean 0.2, sd 0.1, t(0.975, 2) = 4.30265.
    pairs = [(10.0, 10.0 * math.exp(x)) for x in (0.1, 0.2, 0.3)]
    found = judge(Measure.OUTPUT_TOKENS, pairs)
    reach = 4.30265 * 0.1 / math.sqrt(3)
    assert found.ratio == pytest.approx(math.exp(0.2))
    assert found.low == pytest.approx(math.exp(0.2 - reach), rel=1e-5)
    assert found.high == pytest.approx(math.exp(0.2 + reach), rel=1e-5)
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.more_pairs == 2
    assert found.a == pytest.approx(10)


def test_more_is_better_for_tokens_and_worse_for_latency() -> None:
    pairs = [(10.0, 11.0), (10.0, 11.1), (10.0, 10.9), (10.0, 11.0)]
    assert judge(Measure.OUTPUT_TOKENS, pairs).verdict is Verdict.BETTER
    for measure in (Measure.TTFT_P50, Measure.TTFT_P95, Measure.TPOT_P50):
        assert judge(measure, pairs).verdict is Verdict.WORSE
        assert judge(measure, [(b, a) for a, b in pairs]).verdict is Verdict.BETTER


def test_too_little_to_say_asks_for_more_or_owns_up() -> None:
    assert judge(Measure.TTFT_P50, []).verdict is Verdict.CANNOT_TELL
    one = judge(Measure.TTFT_P50, [(1.0, 2.0)])
    assert (one.verdict, one.low) == (Verdict.CANNOT_TELL, None)
    assert one.ratio == pytest.approx(2.0)
    nothing = [(10.0, 10.0 * math.exp(x)) for x in (0.1, -0.1, 0.1, -0.1001)]
    assert judge(Measure.TTFT_P50, nothing).more_pairs is None
    pairs = [(10.0, 10 * math.exp(x)) for x in (0.05, -0.02, 0.06, 0.01)]
    wanted = judge(Measure.TTFT_P50, pairs).more_pairs
    assert wanted is not None and wanted % 2 == 0 and 4 <= wanted <= 10


def test_the_noise_floor_is_how_far_two_runs_of_the_same_lie_apart() -> None:
    assert noise_floor([]) is None
    assert noise_floor([(10, 11), (11, 10)]) == pytest.approx(1.1)
    assert noise_floor([(10, 10)]) == 1.0


def test_runs_are_in_abba_order() -> None:
    assert "".join(a + b for a, b in order(4)) == "ABBAABBA"
