"""The state of an engine from its numbers: what it is called, why, and that it never turns milder
while anything gets worse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop.analysis.series import SeriesName
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.state_rules import Level, LoadState, finding
from llmtop.engines.core.conditions import hung
from llmtop.operations.insight.engine_insight import EngineInsight
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.store.store import Store
from llmtop.values import replace


def run(moments: Iterable[Moment], states: LoadStates | None = None) -> list[LoadState]:
    states = states or LoadStates()
    return [states.note(moment) for moment in moments]


def steady(seconds: int = 40, start: int = 0, /, **values: float | None) -> list[Moment]:
    return [Moment(float(start + second), **values) for second in range(seconds)]  # type: ignore[arg-type]


def last(moments: Iterable[Moment]) -> LoadState:
    return run(moments)[-1]


def levels(found: Iterable[LoadState]) -> list[Level]:
    seen: list[Level] = []
    for one in found:
        if not seen or seen[-1] is not one.level:
            seen.append(one.level)
    return seen


def test_an_engine_that_is_asked_nothing_has_headroom_and_no_load() -> None:
    found = last(steady(running=0, waiting=0, cap=128, kv_usage=0.0))
    assert (found.level, found.reasons) == (Level.HEADROOM, ("no load",))


def test_headroom_says_by_which_numbers() -> None:
    found = last(steady(running=32, waiting=0, cap=128, kv_usage=0.12))
    assert found.level is Level.HEADROOM
    assert found.reasons == ("32 of 128 running", "KV 12%", "nothing waits")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"running": 115, "waiting": 0, "cap": 128, "kv_usage": 0.3}, "115 of 128 running"),
        ({"running": 60, "waiting": 0, "cap": 128, "kv_usage": 0.88}, "KV 88%"),
    ],
)
def test_close_to_a_limit_is_near_the_knee(values: dict[str, float], reason: str) -> None:
    found = last(steady(**values))
    assert (found.level, found.reasons[0]) == (Level.NEAR_KNEE, reason)


def test_a_queue_that_comes_and_goes_is_near_the_knee() -> None:
    moments = [Moment(float(s), running=60, waiting=4.0 * (s % 3 == 0), cap=128) for s in range(40)]
    found = last(moments)
    assert (found.level, found.reasons[0]) == (Level.NEAR_KNEE, "a queue comes and goes")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"running": 128, "waiting": 62, "cap": 128, "kv_usage": 0.31},
            "batch limit 128 reached, 62 waiting",
        ),
        (
            {"running": 90, "waiting": 30, "cap": 128, "kv_usage": 0.99, "preemptions_per_min": 4},
            "KV full, 4 preemptions/min, 30 waiting",
        ),
        (
            {"running": 90, "waiting": 30, "cap": 128, "kv_usage": 0.96},
            "KV 96%, 30 waiting",
        ),
        # The limit that is not known is not named.
        ({"running": 96, "waiting": 30, "kv_usage": 0.31}, "30 waiting at 96 running, KV 31%"),
        (
            {"running": 96, "waiting": 30, "cap": 128, "kv_usage": 0.31},
            "30 waiting at 96 of 128 running, KV 31%",
        ),
        # More run than the limit: it is that of one rank.
        ({"running": 200, "waiting": 30, "cap": 128}, "30 waiting at 200 running"),
    ],
)
def test_a_standing_queue_is_saturation_with_what_is_full(
    values: dict[str, float], reason: str
) -> None:
    found = last(steady(**values))
    assert (found.level, found.reasons[0]) == (Level.SATURATED, reason)


def test_preemptions_saturate_without_a_queue() -> None:
    found = last(steady(running=90, waiting=0, cap=128, kv_usage=0.99, preemptions_per_min=4))
    assert found.level is Level.SATURATED
    assert found.reasons[0] == "KV full, 4 preemptions/min"


def test_a_queue_longer_than_the_batch_is_overload() -> None:
    found = last(steady(running=128, waiting=200, cap=128, oldest_wait=5.5))
    assert found.level is Level.OVERLOADED
    assert found.reasons == (
        "batch limit 128 reached, 200 waiting",
        "a request waits longer than it runs",
        "oldest 5.5s",
    )


def test_a_growing_queue_is_overload_and_says_how_fast() -> None:
    moments = [Moment(float(s), running=128, waiting=2.0 * s, cap=128) for s in range(40)]
    found = last(moments)
    assert found.level is Level.OVERLOADED
    assert found.reasons[:2] == ("queue grows 2.0/s", "batch limit 128 reached, 78 waiting")


def test_requests_that_run_while_no_number_moves_are_a_hang() -> None:
    moments = [
        Moment(float(s), running=32, waiting=0, unchanged_s=float(s) or None, hung=s >= 9)
        for s in range(13)
    ]
    found = run(moments)
    assert found[-1].level is Level.HUNG
    assert found[-1].reasons == ("32 running, no number moved for 12s",)
    assert next(n for n, one in enumerate(found) if one.level is Level.HUNG) <= 10


def test_a_hang_ends_when_numbers_move_again() -> None:
    states = LoadStates()
    run(
        [Moment(float(s), running=32, waiting=0, unchanged_s=20.0, hung=True) for s in range(9)],
        states,
    )
    (found,) = run([Moment(9.0, running=32, waiting=0, cap=128)], states)
    assert found.level is Level.HEADROOM


def test_what_the_engine_does_not_report_is_not_judged() -> None:
    found = last(steady(tokens_per_s=100.0))
    assert found.level is Level.UNKNOWN
    assert "does not report" in found.reasons[0]
    assert finding([]).level is Level.UNKNOWN


def test_one_reading_can_be_taken_at_its_word() -> None:
    one = [Moment(0.0, running=128, waiting=62, cap=128)]
    assert finding(one, least=1).level is Level.SATURATED
    assert finding(one).level is not Level.SATURATED  # a queue of a moment is none


def curve(level: float) -> tuple[float, float]:
    """TTFT p95 and tokens/s of an 8B model on one H200, between 64, 128 and 256 streams."""
    points = [(1, 0.02, 200), (32, 0.04, 3200), (64, 0.054, 5200), (128, 0.081, 6200)]
    points += [(256, 0.18, 6600), (512, 0.4, 6650)]
    for (a, t1, r1), (b, t2, r2) in pairwise(points):
        if level <= b:
            part = (level - a) / (b - a)
            return t1 + part * (t2 - t1), r1 + part * (r2 - r1)
    return points[-1][1], points[-1][2]


def at(second: int, level: float) -> Moment:
    ttft, tokens = curve(level)
    return Moment(float(second), level, 0.0, tokens_per_s=tokens, ttft=ttft)


def test_without_any_limit_in_sight_the_bend_of_the_curve_is_the_evidence() -> None:
    """A ramp to 320 streams on an engine that tells no batch limit, then held: the state is about
    the level, not about its change."""
    levels_asked = [min(320.0, 4.0 + 4 * s) for s in range(80)] + [320.0] * 60
    found = run(at(second, level) for second, level in enumerate(levels_asked))
    assert levels(found) == [Level.HEADROOM, Level.NEAR_KNEE, Level.SATURATED]
    assert found[-1].reasons[0] == "more load brings no more tok/s (flat at 6,612)"


def test_below_the_bend_there_is_headroom_again() -> None:
    levels_asked = [min(320.0, 4.0 + 4 * s) for s in range(80)] + [20.0] * 40
    assert run(at(s, level) for s, level in enumerate(levels_asked))[-1].level is Level.HEADROOM


def test_a_changed_option_moves_the_bend_so_it_is_seen_again() -> None:
    states = LoadStates()
    ramp = [min(320.0, 4.0 + 4 * s) for s in range(110)]
    assert run((at(s, level) for s, level in enumerate(ramp)), states)[-1].level is Level.SATURATED
    states.changed()
    later = run((at(s, 320.0) for s in range(110, 160)), states)
    assert later[-1].level is Level.HEADROOM  # nothing in sight says otherwise


def test_a_jump_of_ttft_at_a_steady_load_is_no_bend() -> None:
    moments = [
        Moment(float(s), 128, 0, 512, 0.3, 0, 6000, 0.1 if s < 60 else 0.5) for s in range(120)
    ]
    assert levels(run(moments)) == [Level.HEADROOM]


def test_a_burst_and_its_queue_do_not_flicker() -> None:
    """Eight seconds above the limit, and back."""
    moments = steady(20, running=60, waiting=0, cap=128, kv_usage=0.2)
    moments += steady(8, 20, running=128, waiting=40, cap=128, kv_usage=0.4)
    moments += steady(40, 28, running=60, waiting=0, cap=128, kv_usage=0.2)
    seen = levels(run(moments))
    assert seen[0] is Level.HEADROOM and seen[-1] is Level.HEADROOM
    assert Level.SATURATED in seen and len(seen) <= 5


def test_a_milder_state_waits_until_the_numbers_were_better_for_a_while() -> None:
    moments = steady(20, running=128, waiting=62, cap=128)
    moments += steady(30, 20, running=60, waiting=0, cap=128)
    found = run(moments)
    assert found[24].level is Level.SATURATED
    assert found[26].reasons[0].startswith("easing: ")
    assert found[-1].level is Level.HEADROOM


def test_a_load_that_stops_is_headroom_at_once() -> None:
    moments = steady(20, running=128, waiting=62, cap=128)
    found = run([*moments, *steady(3, 20, running=0, waiting=0, cap=128)])
    assert (found[-1].level, found[-1].reasons) == (Level.HEADROOM, ("no load",))


def test_the_overload_stays_while_the_queue_grows_ever_slower() -> None:
    """What a ramp does that ends: the queue grows fast, then by a request every ten seconds."""
    queue = [2.0 * s for s in range(40)] + [80.0 + s // 10 for s in range(120)]
    found = run(
        Moment(float(s), running=128, waiting=waiting, cap=128) for s, waiting in enumerate(queue)
    )
    assert levels(found)[-1] is Level.OVERLOADED
    assert [one.level for one in found] == sorted(one.level for one in found)


def test_a_queue_that_stands_still_is_no_overload_any_more() -> None:
    queue = [2.0 * s for s in range(40)] + [80.0] * 60
    found = run(
        Moment(float(s), running=128, waiting=waiting, cap=128) for s, waiting in enumerate(queue)
    )
    assert found[-1].level is Level.SATURATED
    assert found[-1].reasons[0] == "batch limit 128 reached, 80 waiting"


GROWTH: dict[str, Callable[[float], float]] = {
    "evenly": lambda share: share,
    "late": lambda share: share**3,
    "early": lambda share: share**0.33,
    "in steps": lambda share: (share * 8 // 1) / 8,
}


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(GROWTH)),
    st.integers(20, 300),
    st.sampled_from([None, 8.0, 64.0, 256.0]),
    st.floats(1, 600),
    st.sampled_from([0.5, 1.0, 2.0, 5.0]),
    st.booleans(),
    st.booleans(),
)
def test_never_milder_while_everything_gets_worse(
    shape: str, count: int, cap: float | None, most: float, beat: float, kv: bool, hangs: bool
) -> None:
    """More and more is asked; the batch fills to its limit, then the rest waits; the cache fills,
    then requests are preempted; the tokens flatten and the wait for the first one grows."""
    found = []
    states = LoadStates()
    for number in range(count):
        share = GROWTH[shape](number / count)
        asked = 1 + most * share
        running = min(asked, cap or 96.0)
        usage = min(1.0, share * 1.4) if kv else 0.2
        hung = hangs and number > count * 0.9
        found.append(
            states.note(
                Moment(
                    number * beat, running, asked - running, cap, usage,
                    max(0.0, share * 1.4 - 1) * 60, 6000 * running / (running + 40),
                    0.05 + asked * 0.001, asked * 0.01,
                    hung=hung,
                )
            )
        )  # fmt: skip
    shown = [one.level for one in found]
    assert shown == sorted(shown)


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.none() | st.floats(0, 1e6)] * 4), max_size=40))
def test_no_numbers_break_it(numbers: list[tuple[float | None, ...]]) -> None:
    states = LoadStates()
    for second, (running, waiting, cap, tokens) in enumerate(numbers):
        found = states.note(Moment(float(second), running, waiting, cap, None, None, tokens))
        assert found.reasons and all(found.reasons)


def test_the_state_is_on_the_track_and_its_changes_are_events(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.sample is not None
    track.series.clear()
    clock = now

    def beat(running: int, waiting: int, **more: Any) -> None:
        nonlocal clock
        clock += 1.0
        assert track.sample is not None
        track.sample = replace(track.sample, time=clock, running=running, waiting=waiting, **more)
        track.record(SeriesName.RUNNING, clock, float(running))
        track.record(SeriesName.CAP, clock, 128.0)
        source.observe(track)

    def level() -> Level | None:
        return track.load_state.level if track.load_state is not None else None

    source = EngineStates(store, lambda: clock)
    store.events.clear()
    for _ in range(10):
        beat(40, 0, kv_usage=0.1)
    assert level() is Level.HEADROOM
    assert not store.events  # how it stands at first is no change
    for _ in range(10):
        beat(128, 62, kv_usage=0.3)
    assert level() is Level.SATURATED
    texts = [(event.level, event.text) for event in store.events]
    assert texts == [("state", "llama SATURATED: batch limit 128 reached, 62 waiting")]
    beat(128, 62, conditions=(hung(128, 62, 9.0),))
    assert level() is Level.HUNG
    track.stale_since = clock
    source.observe(track)
    assert track.load_state is None


def test_what_waits_for_the_next_step_alone_is_no_queue() -> None:
    """In an engine with room each request waits until the step under way has ended."""
    found = run(steady(running=56, waiting=2, cap=96, kv_usage=0.5))
    assert levels(found) == [Level.HEADROOM]


def test_the_causes_are_judged_again_after_two_seconds_or_when_an_option_changed(
    store: Store, now: float
) -> None:
    track = store.engines["llama"]
    clock = now
    insight = EngineInsight(None, lambda: clock)
    source = EngineStates(store, lambda: clock, lambda name: insight)

    def judged_after(seconds: float) -> bool:
        nonlocal clock
        clock += seconds
        before = track.why
        assert track.sample is not None
        track.sample = replace(track.sample, time=clock)
        track.record(SeriesName.RUNNING, clock, 40.0)
        source.observe(track)
        assert track.why is not None and track.load_state is not None
        return track.why is not before

    assert judged_after(1.0)
    for _ in range(12):  # its state is known by then, and no longer changes
        judged_after(0.9)
    assert [judged_after(0.9) for _ in range(9)].count(True) == 3
    first = track.options[0]
    track.options = (replace(first, value=16), *track.options[1:])
    assert judged_after(0.1)
    insight = EngineInsight(None, lambda: clock)  # the engine was restarted
    assert judged_after(0.1)
