"""Two settings against each other, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.engines.simulated.simulator.model.scheduler import Limits
from llmtop.loadgen.core.measures import Sources
from llmtop.loadgen.core.results import ClientHealth, LoadSnapshot, RequestRecord
from llmtop.loadgen.experiments.comparison import CompareResult, Comparison, PairResult, Turn
from llmtop.loadgen.experiments.paired_test import Measure, Verdict
from llmtop.values import replace
from tests.virtual_load import VirtualLoad


def fight(
    load: VirtualLoad, place: Callable[[str], None], pairs: int = 4, level: int = 32
) -> tuple[CompareResult, list[str], list[PairResult]]:
    duel = Comparison(load.now, level=level, pairs=pairs, seconds=1.0)
    load.on_record = duel.take
    turns, seen = [], []
    for _ in range(5000):
        fact = duel.poll()
        match fact:
            case Turn(arm):
                place(arm)
                turns.append(arm)
                duel.placed(load)
            case PairResult():
                seen.append(fact)
            case CompareResult():
                assert duel.standing is None
                return fact, turns, seen
        load.pass_time(0.05)
    raise AssertionError("the comparison does not end")


def test_half_the_batch_is_worse_in_every_measure_that_it_touches() -> None:
    load = VirtualLoad(1, 64, wander=0.02, noise=0.05)

    def place(arm: str) -> None:
        load.scheduler.limits = Limits(64 if arm == "A" else 16, 2048)

    result, turns, seen = fight(load, place)
    verdicts = {finding.measure: finding.verdict for finding in result.findings}
    assert verdicts[Measure.OUTPUT_TOKENS] is Verdict.WORSE
    assert verdicts[Measure.TTFT_P50] is Verdict.WORSE
    assert verdicts[Measure.TPOT_P50] is Verdict.BETTER  # a small batch steps faster
    assert result.complete and result.left_out == 0
    # A is in force at first and for all noise pairs; B A A B needs no switch in its middle.
    assert turns == ["A", "B", "A", "B", "A"]
    assert [pair.noise for pair in seen] == [True, True, False, False, False, False]
    assert [pair.arms for pair in seen[2:]] == [("A", "B"), ("B", "A"), ("A", "B"), ("B", "A")]


def test_a_against_itself_is_not_told_apart() -> None:
    load = VirtualLoad(2, 64, wander=0.02, noise=0.05)
    result, _, _ = fight(load, lambda arm: None)
    assert {finding.verdict for finding in result.findings} == {Verdict.CANNOT_TELL}
    for finding in result.findings:
        assert finding.noise is not None and 1 < finding.noise < 1.2
        assert finding.n == 4


@pytest.mark.more
def test_ten_percent_are_found_within_eight_pairs() -> None:
    load = VirtualLoad(3, 64, wander=0.02, noise=0.05)

    def place(arm: str) -> None:
        load.shaking.pace = 1.0 if arm == "A" else 1.10

    result, _, _ = fight(load, place, pairs=8)
    tokens = result.findings[0]
    assert tokens.verdict is Verdict.WORSE
    assert tokens.low is not None and tokens.high is not None
    assert tokens.low < 1 / 1.10 < tokens.high


def test_a_pair_that_the_client_spoilt_is_run_again_and_left_out() -> None:
    def verdict(level: int) -> str:
        return "client-bound, because x" if 200 < load.requests < 260 else "valid"

    load = VirtualLoad(4, 64, verdict=verdict)
    result, _, seen = fight(load, lambda arm: None, level=4)
    assert result.left_out == sum(not pair.counted for pair in seen) >= 1
    assert sum(pair.counted and not pair.noise for pair in seen) == 4
    assert all(finding.n == 4 for finding in result.findings)


def test_a_client_that_never_keeps_up_ends_it_early_without_a_verdict() -> None:
    load = VirtualLoad(5, 64, verdict=lambda level: "client-bound, because x")
    result, _, seen = fight(load, lambda arm: None, level=4)
    assert len(seen) == 3, "two of noise and the first of A and B"
    assert not result.complete and result.gave_up == "client-bound, because x"
    assert all(finding.n == 0 for finding in result.findings)
    assert {finding.verdict for finding in result.findings} == {Verdict.CANNOT_TELL}


def test_a_client_that_keeps_up_once_is_given_its_pairs_to_the_end() -> None:
    def verdict(level: int) -> str:
        return "valid" if load.requests < 100 else "client-bound, because x"

    load = VirtualLoad(5, 64, verdict=verdict)
    result, _, seen = fight(load, lambda arm: None, level=4)
    assert seen[0].counted and not any(pair.counted for pair in seen[1:])
    assert len(seen) == 2 + 4 + 2 and result.complete and not result.gave_up


class Bounded(VirtualLoad):
    """A client that can have moved TTFT, by a share of it, and no throughput."""

    share = 0.0

    def snapshot(self) -> LoadSnapshot:
        health = ClientHealth("valid", "kernel", sources=Sources(), remedy="fewer streams")
        return replace(super().snapshot(), health=health)

    def pass_time(self, seconds: float = 0.1) -> None:
        inner, self.on_record = self.on_record, self._late
        self._inner = inner
        super().pass_time(seconds)
        self.on_record = inner

    def _late(self, record: RequestRecord) -> None:
        assert record.ttft is not None
        self._inner(replace(record, first_error=self.share * record.ttft))


def test_a_pair_counts_for_every_measure_that_the_client_cannot_have_moved() -> None:
    load = Bounded(1, 64, wander=0.02, noise=0.05)
    load.share = 0.3

    def place(arm: str) -> None:
        load.scheduler.limits = Limits(64, 2048)

    result, _, seen = fight(load, place)
    found = {finding.measure: finding for finding in result.findings}
    assert found[Measure.OUTPUT_TOKENS].n == 4 and found[Measure.OUTPUT_TOKENS].left_out == 0
    assert found[Measure.TTFT_P50].n == 0 and found[Measure.TTFT_P50].left_out == 4
    assert all(pair.counted for pair in seen) and result.left_out == 0 and len(seen) == 6
    assert set(seen[0].left_out) >= {Measure.TTFT_P50}
    assert "TTFT p50 can be" in seen[0].spoilt(Measure.TTFT_P50)


def test_a_difference_larger_than_the_bound_counts() -> None:
    load = Bounded(1, 64, wander=0.02, noise=0.05)
    load.share = 0.3

    def place(arm: str) -> None:
        load.scheduler.limits = Limits(64 if arm == "A" else 16, 2048)

    result, _, _ = fight(load, place)
    ttft = next(one for one in result.findings if one.measure is Measure.TTFT_P50)
    assert ttft.ratio is not None and ttft.ratio > 1.5
    assert ttft.verdict is Verdict.WORSE and ttft.n == 4


def test_where_it_stands_is_told() -> None:
    load = VirtualLoad(6, 64)
    duel = Comparison(load.now, level=4, pairs=2, noise_pairs=1, seconds=1.0)
    load.on_record = duel.take
    standing = []
    while not isinstance(fact := duel.poll(), CompareResult):
        if isinstance(fact, Turn):
            duel.placed(load)
        load.pass_time(0.05)
        if duel.standing is not None:
            standing.append(duel.standing)
    assert standing[0].run == 1 and standing[-1].run == 6
    assert {s.runs for s in standing} == {6}
    assert standing[0].left_s > standing[-1].left_s


def test_what_was_started_for_a_run_is_warmed_up_before_it_counts() -> None:
    load = VirtualLoad(8, 64)
    duel = Comparison(load.now, level=8, pairs=2, noise_pairs=1, seconds=1.0, switch_s=20.0)
    load.on_record = duel.take
    assert duel.sequence == "AAABBA"
    phases: list[str] = []
    begun: list[float] = []
    pairs: list[PairResult] = []
    while not isinstance(fact := duel.poll(), CompareResult):
        if isinstance(fact, Turn):
            duel.placed(load, fresh=fact.arm == "B")
            begun.append(load.now())
        if isinstance(fact, PairResult):
            pairs.append(fact)
        load.pass_time(0.05)
        if duel.standing is not None:
            phases.append(duel.standing.phase)
    assert phases.count("settling after its start") >= 20
    # The first run at B: nothing that was sent in the second after its start is in it.
    first = pairs[1].runs[1]
    assert pairs[1].arms == ("A", "B")
    assert min(record.intended for record in first.records) >= begun[1] + 1.0
    assert [len(pair.runs) for pair in pairs] == [2, 2, 2]


def test_the_time_left_counts_what_a_switch_takes() -> None:
    load = VirtualLoad(9, 64)
    quick, slow = (
        Comparison(load.now, level=8, pairs=4, seconds=1.0, switch_s=switch)
        for switch in (0.0, 60.0)
    )
    assert quick.standing is not None and slow.standing is not None
    # A first, then one switch in the middle of each of the four pairs.
    assert slow.standing.left_s - quick.standing.left_s == 5 * 60
