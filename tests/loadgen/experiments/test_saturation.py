"""The whole search in virtual time, against the simulated engine's own scheduler."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from llmtop.cli.load.saturate import client_failure
from llmtop.loadgen.core.results import ClientHealth, LoadSnapshot
from llmtop.loadgen.experiments.level import LevelResult, relative_error
from llmtop.loadgen.experiments.saturation import Progress, Saturation, SaturationResult
from llmtop.loadgen.experiments.search import End
from llmtop.loadgen.experiments.slo import parse
from llmtop.loadgen.workload.plan import Plan
from llmtop.values import replace
from tests.virtual_load import VirtualLoad

CAP = 24  # max_num_seqs: more streams than this only wait


def search(
    load: VirtualLoad, slo: str = "", top: int = 256, seconds: float = 3.0
) -> SaturationResult:
    saturation = Saturation(parse(slo) if slo else None, load.now, top=top, seconds=seconds)
    load.on_record = saturation.take
    saturation.begin(load)
    for _ in range(10_000):
        load.pass_time(0.1)
        found = saturation.poll()
        if isinstance(found, SaturationResult):
            return found
    raise AssertionError("the search does not end")


@pytest.fixture(scope="module")
def true_knee() -> float:
    """Streams at which throughput crosses 90 % of the best: long runs, straight between them."""
    best = rate(48)
    levels = {n: rate(n) for n in (20, 21, 22, 23, 24)}
    for low, high in pairwise(levels):
        if levels[low] < 0.9 * best <= levels[high]:
            part = (0.9 * best - levels[low]) / (levels[high] - levels[low])
            return low + part
    raise AssertionError(f"the knee is not where it was: {best}, {levels}")


def rate(streams: int) -> float:
    load = VirtualLoad(1000 + streams, CAP)
    load.loop.hold(streams, 12.0)
    return load.loop.measure(streams, 2.0, 12.0).output_tokens_per_s


@pytest.mark.more
def test_the_knee_is_within_its_error_bar_in_nine_of_ten_seeds(true_knee: float) -> None:
    hits, widths = 0, []
    for seed in range(10):
        load = VirtualLoad(seed, CAP, wander=0.02, noise=0.05)
        knee = search(load, seconds=2.0).knee
        assert knee is not None and knee.high is not None
        hits += knee.low <= true_knee <= knee.high
        widths.append(knee.high / knee.low if knee.low else float("inf"))
    assert hits >= 9
    assert sorted(widths)[5] <= 1.6  # an error bar that encloses everything would be no answer


def test_the_highest_load_within_limits_is_at_the_cap() -> None:
    # A slot in the batch is free at once up to the cap; beyond it TTFT is queueing.
    found = search(VirtualLoad(3, CAP), "ttft=30ms,tpot=10ms")
    assert found.complete
    for answer in found.answers:
        assert answer.end is End.FOUND
        assert answer.level is not None and answer.fails is not None
        assert CAP - 3 <= answer.level <= CAP + 2 < CAP + 6 >= answer.fails > answer.level
    assert [answer.share for answer in found.answers] == [0.90, 0.95, 0.99]


def test_each_level_is_measured_in_its_steady_state() -> None:
    found = search(VirtualLoad(4, CAP), "ttft=30ms")
    for level in found.levels:
        assert level.steady and level.valid and not level.stalled
        assert level.little == pytest.approx(1.0, abs=0.08)
        assert level.in_flight == pytest.approx(level.level, rel=0.05)
        assert level.n >= 60
        assert all(record.intended >= 0 for record in level.records)
        assert level.output_tokens_per_s == pytest.approx(
            sum(record.tokens for record in level.records) / level.seconds, rel=0.1
        )


def test_the_warm_up_is_left_out() -> None:
    # All 64 prompts arrive at once at the start: their TTFT is far above the steady one.
    load = VirtualLoad(5, 512)
    saturation = Saturation(parse("ttft=1s"), load.now, top=64, seconds=2.0)
    saturation.search.start = 64
    everything: list[float] = []

    load.on_record = saturation.take
    saturation.begin(load)
    level = None
    while level is None:
        load.pass_time(0.05)
        found = saturation.poll()
        level = found if isinstance(found, LevelResult) else None
    everything = [stream.moments[0] - stream.sent for stream in load.loop.streams[:64]]
    assert level.warm_up_s >= 0.5
    assert level.ttft.p99 is not None and level.ttft.p99 < max(everything)
    assert min(record.intended for record in level.records) > 0


def test_a_level_that_the_client_spoilt_is_no_answer() -> None:
    load = VirtualLoad(6, CAP, verdict=lambda n: "valid" if n < 16 else "client-bound, because x")
    found = search(load, "ttft=30ms")
    assert found.ceiling == 16
    assert [level.level for level in found.levels].count(16) == 2
    assert all(not level.valid for level in found.levels if level.level == 16)
    assert found.answers[1].end is End.BEYOND and found.answers[1].level == 8
    assert found.client_limited and not found.complete
    assert client_failure(found) is None  # what was found by then is an answer


def test_where_the_client_is_the_limit_at_once_nothing_was_found_and_it_fails() -> None:
    load = VirtualLoad(6, CAP, verdict=lambda n: "client-bound, because x")
    found = search(load, "ttft=30ms")
    assert found.ceiling == 4 and found.client_limited and not found.complete
    failure = client_failure(found)
    assert failure is not None
    assert failure.message == "nothing was found: this client is the limit at 4 streams"


@pytest.mark.more
def test_one_hiccup_of_the_client_leaves_a_search_whole() -> None:
    spoilt = iter(["client-bound, because x"])

    class Once(VirtualLoad):
        def snapshot(self) -> LoadSnapshot:
            return replace(super().snapshot(), health=self.health)

        health = ClientHealth("valid", "kernel")

        def start(self, plan: Plan) -> None:
            super().start(plan)
            words = next(spoilt, "valid") if self.level == 16 else "valid"
            self.health = ClientHealth(words, "kernel")

    found = search(Once(6, CAP), "ttft=300ms")
    assert found.complete and found.ceiling is None
    assert [level.valid for level in found.levels if level.level == 16] == [False, True]


class Hung(VirtualLoad):
    """Takes every request and answers none."""

    clock = 0.0

    def now(self) -> float:
        return self.clock

    def pass_time(self, seconds: float = 0.1) -> None:
        self.clock += seconds

    def snapshot(self) -> LoadSnapshot:
        return replace(super().snapshot(), in_flight=self.level)


def test_an_engine_that_answers_nothing_ends_the_search() -> None:
    found = search(Hung(7), "ttft=30ms")
    assert [level.level for level in found.levels] == [4, 2, 1]
    assert all(level.stalled and level.n == 0 for level in found.levels)
    assert found.knee is None
    assert {answer.end for answer in found.answers} == {End.NEVER}


def test_progress_tells_level_phase_and_time_left() -> None:
    load = VirtualLoad(8, CAP)
    saturation = Saturation(None, load.now, top=64, seconds=2.0)
    load.on_record = saturation.take
    assert saturation.progress is None
    saturation.begin(load)
    seen: list[Progress] = []
    while not isinstance(saturation.poll(), SaturationResult):
        load.pass_time(0.1)
        if saturation.progress is not None:
            seen.append(saturation.progress)
    assert {p.phase for p in seen} == {"reaching", "warming up", "measuring"}
    left = [p.left_s for p in seen]
    assert left[0] > left[-1] and left == sorted(left, reverse=True)
    assert load.level == 0  # the load is stopped at the end


def test_energy_is_told_by_its_counter_and_never_guessed() -> None:
    load = VirtualLoad(9, CAP)
    saturation = Saturation(None, load.now, top=4, seconds=2.0, energy=lambda: 500.0 * load.now())
    load.on_record = saturation.take
    saturation.begin(load)
    level = None
    while level is None:
        load.pass_time(0.1)
        found = saturation.poll()
        level = found if isinstance(found, LevelResult) else None
    assert level.energy_j == pytest.approx(500.0 * level.seconds)
    assert level.tokens_per_joule == pytest.approx(level.output_tokens_per_s / 500.0)
    price = level.dollars_per_million(3.6)
    assert price == pytest.approx(0.001 / level.output_tokens_per_s * 1e6)
    assert search(VirtualLoad(9, CAP), top=4).levels[0].tokens_per_joule is None


def test_the_error_of_a_rate_is_that_of_its_blocks() -> None:
    rng = random.Random(1)
    estimates, means = [], []
    for _ in range(300):
        tokens, moments = 0.0, [(0.0, 0)]
        for beat in range(1, 81):
            tokens += 100 + rng.gauss(0, 20)
            moments.append((beat / 10, round(tokens)))
        error = relative_error(moments)
        assert error is not None
        estimates.append(error)
        means.append(tokens / 80)
    spread = (sum((m / 100 - 1) ** 2 for m in means) / 300) ** 0.5
    assert sum(estimates) / 300 == pytest.approx(spread, rel=0.15)
    assert relative_error([(0.0, 0), (1.0, 5)]) is None
