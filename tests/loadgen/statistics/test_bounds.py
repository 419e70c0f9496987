"""From sources of error to bounds, and from bounds to verdicts: numbers in, numbers out."""

import math

import pytest
from msgspec import structs

from llmtop.loadgen.core.measures import Extent, Measure, Sources, Verdict
from llmtop.loadgen.core.results import ClientHealth, Fate, LatencySummary, RequestRecord
from llmtop.loadgen.experiments.level import LevelMeter
from llmtop.loadgen.experiments.slo import Slo
from llmtop.loadgen.statistics.bounds import STAMP_S, bounds, extent
from llmtop.loadgen.statistics.client_health import VALID, examined, remedy, strain
from llmtop.loadgen.statistics.verdict import judge, valid_measures
from llmtop.values import replace
from tests.virtual_load import VirtualLoad


def seconds(p50: float, p99: float | None = None, n: int = 400) -> LatencySummary:
    return LatencySummary(p50, p50 if p99 is None else p99, p50 if p99 is None else p99, n)


def verdicts(sources: Sources, **limits: float) -> dict[tuple[str, str], Verdict]:
    return {(one.measure.value, one.quantile): one for one in judge(sources, limits)}


EXACT = Sources(extents={Measure.TTFT: extent(seconds(0.2, 0.4), seconds(0.2, 0.4))})


def test_what_is_exact_is_bounded_by_the_clocks_alone() -> None:
    for bound in bounds(EXACT):
        assert bound.error == pytest.approx(STAMP_S)
    assert all(one.valid and not one.reason for one in judge(EXACT))


def test_a_latency_is_bounded_on_either_side_quantile_by_quantile() -> None:
    gaps = Extent(seconds(0.02, 0.06), seconds(0.02, 0.02), seconds(0.025, 0.07), 0.1)
    found = verdicts(Sources(extents={Measure.ITL: gaps}))
    assert found["itl", "p50"].bound == pytest.approx(0.005 + STAMP_S)
    assert found["itl", "p99"].bound == pytest.approx(0.04 + STAMP_S)
    assert found["itl", "p99"].reason == "10.0% of its tokens were read together with later ones"


def test_a_bound_that_is_not_known_has_a_reason_too() -> None:
    # All tokens of the answers may have come at one moment: then they have no TPOT at all.
    none = LatencySummary(None, None, None, 0)
    found = verdicts(Sources(extents={Measure.TPOT: Extent(seconds(0.02, n=1), none, none, 0.0)}))
    assert not found["tpot", "p50"].valid
    assert found["tpot", "p50"].bound is None
    assert "read together" in found["tpot", "p50"].reason


BUSY = seconds(0.2)
EARLY = seconds(0.1)  # half of it can be this client's


@pytest.mark.parametrize(
    ("measure", "sources", "words"),
    [
        (Measure.TTFT, Sources(closed=False, late_s=0.1), "requests left up to 100.0 ms late"),
        (
            Measure.TTFT,
            Sources(extents={Measure.TTFT: extent(BUSY, EARLY, sent=seconds(0.12))}),
            "this client took up to 80.0 ms to send a request",
        ),
        (
            Measure.TTFT,  # some requests were late, but not those at this quantile
            Sources(late_s=0.1, extents={Measure.TTFT: extent(BUSY, EARLY, sent=BUSY)}),
            "first tokens were read together with later ones",
        ),
        (Measure.TTFT, Sources(), "first tokens were read together with later ones"),
        (Measure.TPOT, Sources(late_s=0.1), "last tokens were read together with the data after"),
        (
            Measure.TPOT,
            Sources(extents={Measure.TPOT: Extent(BUSY, BUSY, seconds(0.3))}),
            "first tokens were read together with later ones",
        ),
        (Measure.E2E, Sources(stalled=0.2), "answers stayed unread until the server had to wait"),
        (
            Measure.ITL,  # the stall is no part of a gap's bound
            Sources(stalled=0.2, extents={Measure.ITL: Extent(BUSY, EARLY, BUSY, 0.7)}),
            "70.0% of its tokens were read together with later ones",
        ),
        (
            Measure.TTFT,
            Sources(stamped=False, lag_s=0.03),
            "without kernel stamps this program takes the times, up to 30.0 ms late (p99)",
        ),
    ],
)
def test_the_reason_is_the_source_of_most_of_the_error(
    measure: Measure, sources: Sources, words: str
) -> None:
    if not sources.extents:
        sources = structs.replace(sources, extents={measure: extent(BUSY, EARLY)})
    found = verdicts(sources)[measure.value, "p50"]
    assert not found.valid and found.reason.startswith(words)


def test_few_tokens_that_were_read_together_are_not_the_whole_reason() -> None:
    gaps = Extent(seconds(0.02, 0.042), seconds(0.02, 0.02), seconds(0.02, 0.042), 0.001)
    found = verdicts(Sources(extents={Measure.ITL: gaps}))["itl", "p99"]
    assert found.reason == (
        "0.1% of its tokens were read together with later ones, and p99 lies between short gaps"
        " and long ones"
    )


@pytest.mark.parametrize("measure", [Measure.ITL, Measure.TPOT])
def test_a_short_gap_that_only_the_clocks_blur_is_valid(measure: Measure) -> None:
    short = replace(seconds(0.0007), resolution=1 / 128)
    found = verdicts(Sources(extents={measure: extent(short, short)}))
    assert all(
        one.valid and one.bound is not None and one.bound >= STAMP_S for one in found.values()
    )


@pytest.mark.parametrize(("off", "valid"), [(0.019, True), (0.021, False)])
def test_a_tenth_of_the_value_is_the_most(off: float, valid: bool) -> None:
    low = seconds(0.2 - off)
    assert (
        verdicts(Sources(extents={Measure.TTFT: extent(seconds(0.2), low)}))["ttft", "p50"].valid
        is valid
    )


def test_a_tenth_of_the_limit_under_test_is_as_good() -> None:
    late = Sources(extents={Measure.TTFT: extent(seconds(0.043), seconds(0.01))})
    assert not verdicts(late)["ttft", "p50"].valid
    assert verdicts(late, ttft=0.5)["ttft", "p50"].valid


def test_throughput_is_short_by_the_time_that_streams_are_away() -> None:
    found = verdicts(Sources(tokens_per_s=1000.0, turnaround=0.2))["output_tokens_per_s", ""]
    assert found.bound == pytest.approx(250.0) and not found.valid
    assert found.words == (
        "tok/s can be 25% off: streams waited 20% of their time for this client's next send"
    )
    assert verdicts(Sources(tokens_per_s=1000.0, turnaround=0.08))["output_tokens_per_s", ""].valid


def test_in_an_open_loop_streams_do_not_wait_for_the_client_and_lateness_blurs_the_window() -> None:
    found = verdicts(
        Sources(closed=False, tokens_per_s=1000.0, turnaround=0.5, late_s=0.1, window_s=10.0)
    )
    assert found["output_tokens_per_s", ""].bound == pytest.approx(10.0)


def test_a_window_that_is_not_what_was_asked_for_bounds_nothing() -> None:
    spoilt = verdicts(
        Sources(extents=EXACT.extents, tokens_per_s=1.0, void="1 of its workers ended")
    )
    assert len(spoilt) == 4
    assert all(
        (one.bound, one.valid, one.reason) == (None, False, "1 of its workers ended")
        for one in spoilt.values()
    )
    assert all(one.share == math.inf for one in spoilt.values())


def test_a_share_in_time_is_valid_when_either_end_gives_the_same_answer() -> None:
    wide = {Measure.TTFT: extent(seconds(0.5), seconds(0.2))}

    def of(low: int, high: int) -> Verdict:
        sources = Sources(extents=wide, attained=(low, low, high, 100))
        return verdicts(sources, ttft=0.5)["slo_attainment", ""]

    assert of(99, 100).valid  # holds either way
    assert of(20, 70).valid  # fails either way
    assert not of(80, 100).valid
    assert of(80, 100).bound == pytest.approx(0.2)


def test_few_observations_have_no_tail_to_judge() -> None:
    few = Sources(extents={Measure.TTFT: extent(seconds(0.2, 0.9, 19), seconds(0.2, 0.2, 19))})
    assert set(verdicts(few)) == {("ttft", "p50")}


def test_only_what_is_asked_for_makes_the_client_the_limit() -> None:
    gaps = Extent(seconds(0.02, 0.2), seconds(0.02, 0.02), seconds(0.02, 0.2), 0.2)
    sources = Sources(extents={**EXACT.extents, Measure.ITL: gaps}, tokens_per_s=9.0)
    health = ClientHealth("", "kernel")
    assert examined(health, sources, (Measure.TTFT, Measure.THROUGHPUT)).verdict == VALID
    whole = examined(health, sources)
    assert whole.verdict.startswith("partly valid, because ITL p99 can be 180.1 ms off: 20.0% of")
    assert whole.causes == ("ITL p99 +-180ms",)
    assert valid_measures(whole.measures) == ["TTFT", "ITL p50", "tok/s"]


AWAY = Sources(tokens_per_s=9.0, turnaround=0.2)


@pytest.mark.parametrize(
    ("asked", "sources", "word"),
    [
        ({Measure.ITL, Measure.TTFT}, Sources(), "partly valid"),
        ({Measure.ITL}, Sources(), "not valid"),
        ({Measure.ITL, Measure.THROUGHPUT}, Sources(tokens_per_s=9.0), "partly valid"),
        (
            {Measure.ITL, Measure.THROUGHPUT},
            Sources(tokens_per_s=9.0, turnaround=0.2),
            "client-bound",
        ),
        ({Measure.ITL}, Sources(tokens_per_s=9.0, turnaround=0.2), "not valid"),
        ({Measure.TTFT}, Sources(void="1 of its workers ended"), "client-bound"),
    ],
)
def test_the_client_is_the_limit_only_where_throughput_or_the_load_suffered(
    asked: set[Measure], sources: Sources, word: str
) -> None:
    gaps = Extent(seconds(0.2), seconds(0.02), seconds(0.2), 0.9)
    sources = structs.replace(sources, extents={**EXACT.extents, Measure.ITL: gaps})
    assert examined(ClientHealth("", "kernel"), sources, asked).word == word


def test_what_helps_depends_on_what_is_short() -> None:
    assert remedy(0.9, 0.02, workers=1, cores=8).startswith("--workers 2")
    assert "other programs" in remedy(0.9, 0.3, workers=1, cores=8)
    assert remedy(0.3, 0.02, workers=1, cores=8) == "fewer streams, or another machine"
    assert strain(0.9, 0.3, seconds(0.001, 0.05)) == [
        "worker CPU 90%", "core wait 30%", "reads lag 50ms",
    ]  # fmt: skip


class Late(VirtualLoad):
    """An engine behind a client that is short of cores: gaps are wrong, streams are away."""

    turnaround = 0.0
    off_s = 0.0

    def snapshot(self):  # type: ignore[no-untyped-def]
        gaps = Extent(seconds(0.01), seconds(0.0), seconds(0.04), 0.9)
        sources = Sources(extents={Measure.ITL: gaps}, turnaround=self.turnaround)
        health = ClientHealth(VALID, "kernel", run_delay=0.6, sources=sources)
        return replace(super().snapshot(), health=health)


def level_of(load: Late, slo: Slo | None = None):  # type: ignore[no-untyped-def]
    meter = LevelMeter(8, load, load.now, seconds=1.0, slo=slo)
    load.on_record = meter.take
    while (found := meter.poll()) is None:
        load.pass_time(0.1)
    return found


def test_a_level_holds_beside_a_crowd_that_spoils_other_measures_only() -> None:
    crowded = level_of(Late(5), Slo(ttft=1.0, tpot=0.1))
    assert crowded.valid and crowded.in_time == crowded.n
    gaps = crowded.verdict(Measure.ITL, "p50")
    assert gaps is not None and not gaps.valid


def test_a_level_whose_streams_are_away_is_the_clients() -> None:
    load = Late(5)
    load.turnaround = 0.2
    found = level_of(load, Slo(ttft=1.0))
    assert not found.valid and "for this client's next send" in found.health.verdict


def test_a_request_is_in_time_surely_perhaps_or_not_at_all() -> None:
    def extremes(ttft: float, early: float) -> tuple[bool, bool]:
        record = RequestRecord(
            0.0, 0.0, ttft, ttft, ttft + 1.0, 5, 11, False, Fate.OK, first_error=early
        )
        return Slo(ttft=0.5, tpot=0.2).extremes(record)

    assert extremes(0.4, 0.1) == (True, True)
    assert extremes(0.55, 0.1) == (False, True)
    assert extremes(0.7, 0.1) == (False, False)
    assert extremes(0.4, 1.5) == (False, True)  # TPOT can have been 0.25 s
