"""Before and after a change: which windows are laid side by side, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC

import pytest

from llmtop.analysis.effects import FULL_S, KEPT, Effect, Effects, Figures, mean_rate
from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName
from llmtop.engines.core.records import EngineStatus, State
from llmtop.engines.core.samples import EngineSample, Latency, Quantile, Quantiles
from llmtop.loadgen.core.results import LatencySummary, LoadSnapshot
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.view.view import View
from llmtop.values import replace
from llmtop.wording.sentences import effect_words
from tests.plain_rows import plain

CHANGE = Mark(100.0, "seqs 64->256", effect=True)


def figures(time: float, ms: float, asked: float | None = 64.0, n: int = 400) -> Figures:
    return Figures(time, 10.0, Quantile(ms / 1000), 10 * ms, n, asked)


def run(
    effects: Effects,
    seconds: Iterable[int],
    marks: list[Mark],
    *,
    sides: tuple[str, ...] = ("client", "server"),
    asked: Callable[[int], float] = lambda second: 64.0,
) -> list[tuple[int, Effect]]:
    """A second each: TTFT in ms is the second itself, so that a window tells when it ended."""
    out = []
    for second in seconds:
        for side in sides:
            effects.add(side, figures(float(second), second, asked(second)))
        effects.add_marks([mark for mark in marks if mark.time <= second])
        out += [(second, effect) for effect in effects.due(float(second))]
    return out


def test_the_last_window_before_and_the_first_that_began_after() -> None:
    ((second, effect),) = run(Effects(), range(80, 140), [CHANGE])
    assert second == 110  # as soon as a full window has passed
    assert effect.by == "client"
    assert effect.before == figures(100.0, 100)
    assert effect.after == figures(110.0, 110)
    assert (effect.levels, effect.disturbed) == (None, False)


def test_a_change_between_two_samples_takes_no_window_that_reaches_over_it() -> None:
    mark = Mark(100.4, "seqs 64->256", effect=True)
    ((second, effect),) = run(Effects(), range(80, 140), [mark])
    assert second == 111
    assert effect.before is not None and effect.before.time == 100.0
    assert effect.after is not None and effect.after.start >= 100.4


def test_without_a_load_of_ours_it_is_the_servers_own() -> None:
    ((_, effect),) = run(Effects(), range(80, 140), [CHANGE], sides=("server",))
    assert effect.by == "server"
    assert "the server's own" in effect_words(effect)


def test_a_load_that_grew_meanwhile_is_said_to_have() -> None:
    ((_, effect),) = run(Effects(), range(80, 140), [CHANGE], asked=lambda second: second)
    assert effect.levels == (90, 110)
    assert "different load: 100 -> 110" in effect_words(effect)


@pytest.mark.parametrize("second", [93, 106])
def test_another_change_in_one_of_the_windows_is_said(second: int) -> None:
    marks = [CHANGE, Mark(float(second), "burst 128")]
    ((_, effect),) = run(Effects(), range(80, 140), sorted(marks, key=lambda mark: mark.time))
    assert effect.disturbed
    assert "another change meanwhile" in effect_words(effect)


def test_a_change_long_before_disturbs_nothing() -> None:
    ((_, effect),) = run(Effects(), range(60, 140), [Mark(85.0, "burst 128"), CHANGE])
    assert not effect.disturbed


def test_several_options_of_one_command_are_one_change() -> None:
    marks = [CHANGE, Mark(100.2, "spec 0->4", effect=True)]
    ((_, effect),) = run(Effects(), range(80, 140), marks)
    assert effect.label == "seqs 64->256, spec 0->4"
    assert not effect.disturbed


def test_each_change_is_told_once() -> None:
    marks = [CHANGE, Mark(130.0, "seqs 256->64", effect=True)]
    told = run(Effects(), range(80, 200), marks)
    assert [(second, effect.label) for second, effect in told] == [
        (110, "seqs 64->256"),
        (140, "seqs 256->64"),
    ]


def test_a_restart_is_laid_against_what_was_before_the_engine_went_down() -> None:
    """Down from 100 to 150: nothing is noted meanwhile."""
    effects = Effects()
    run(effects, range(80, 101), [])
    restart = Mark(150.0, "max_model_len 8,192 -> 4,096", effect=True, since=100.2)
    marks = [Mark(148.0, "restart"), restart]
    effects.add_marks(marks)
    ((second, effect),) = run(effects, range(150, 200), marks)
    assert second == 160
    assert effect.before is not None and effect.before.time == 100.0
    assert effect.after is not None and effect.after.start == 150.0
    assert not effect.disturbed  # its own coming up is no other change


def test_a_load_that_ended_meanwhile_leaves_the_servers_figures_and_says_so() -> None:
    effects = Effects()
    run(effects, range(80, 104), [CHANGE])
    ((_, effect),) = run(effects, range(104, 140), [CHANGE], sides=("server",))
    assert effect.by == "server" and effect.load_started_or_stopped
    assert "the load started or stopped meanwhile" in effect_words(effect)


def test_an_engine_that_did_nothing_has_no_figures_and_the_reason_is_said() -> None:
    effects = Effects()
    told: list[Effect] = []
    for second in range(80, 140):
        effects.add("server", Figures(float(second), 10.0, None, 0.0, 0))
        effects.add_marks([CHANGE] if second >= 100 else [])
        told += effects.due(float(second))
    (effect,) = told
    assert effect_words(effect) == (
        "seqs 64->256: before and after unknown",
        "nothing ran before and after it",
    )


def test_numbers_that_never_come_are_not_waited_for_for_ever() -> None:
    told = run(Effects(), range(80, 200), [CHANGE], sides=())
    ((second, effect),) = told
    assert 150 < second < 170
    assert effect.missing == "no full window was measured before and after it"


def test_what_cannot_be_resolved_and_what_is_not_known_stay_so() -> None:
    before = Figures(100.0, 10.0, Quantile(0.3, "<"), None, 812)
    after = Figures(112.0, 12.0, None, 6390.0, 0)
    words = effect_words(Effect("spec off->4", "server", before, after))
    assert words[:3] == (
        "spec off->4: TTFT p95 <300ms -> --",
        "tok/s -- -> 6,390",
        "n=812, 0 in 10s and 12s",
    )


def test_ranges_stay_ranges_and_the_exact_means_stand_beside_them() -> None:
    before = Figures(100.0, 10.0, Quantile(0.25, "-", 0.5), 3173, 812, ttft_mean=0.301)
    after = Figures(112.0, 10.0, Quantile(0.1, "-", 0.25), 6390, 1640, ttft_mean=0.142)
    words = effect_words(Effect("seqs 64->256", "server", before, after))
    assert words[:2] == (
        "seqs 64->256: TTFT p95 250-500ms -> 100-250ms",
        "mean 301ms -> 142ms",
    )


def test_memory_is_bounded_whatever_is_noted_and_marked() -> None:
    effects = Effects()
    marks = [Mark(float(s), f"seqs {s}", effect=True) for s in range(0, 1500, 2)]
    for second in range(1500):
        effects.add("client", figures(float(second), 1))
        effects.add_marks(marks[: second // 2])
        effects.due(float(second))
    assert all(len(notes) <= KEPT for notes in effects._windows.values())
    assert len(effects._pending) <= 8 and len(effects._changes) <= 50


def test_a_rate_counts_that_reaches_back_no_further_than_the_window() -> None:
    points = [(90.0 + s, 100.0 if s < 4 else 400.0) for s in range(11)]
    assert mean_rate(points, 100.0, 10.0, 4.0) == 400.0
    assert mean_rate([(95.0, None)], 100.0, 10.0, 3.0) is None


def beat_at(
    track: EngineTrack, store: Store, load: LoadSnapshot | None, second: float, ttft: float
) -> None:
    """What the other sources write in a beat."""
    own = Quantiles(None, Quantile(ttft), None, ttft, 90, 10.0)
    track.sample = EngineSample(
        second, 10.0, output_tokens_per_s=3000.0, rate_window_s=3.0, latencies={Latency.TTFT: own}
    )
    track.record(SeriesName.OUTPUT_TOKENS, second, 3000.0)
    store.load = load
    if load is not None:
        track.record(SeriesName.CLIENT_TTFT_P95, second, load.ttft.p95)


@pytest.fixture
def rig() -> tuple[Store, EngineTrack, EffectSource, list[float]]:
    clock = [0.0]
    track = EngineTrack("one", "sim", "simulated", "http://127.0.0.1:9", owned=True)
    store = Store(engines={"one": track}, selected="one", load_target="one")
    return store, track, EffectSource(store, lambda: clock[0]), clock


async def test_the_row_comes_by_itself(
    rig: tuple[Store, EngineTrack, EffectSource, list[float]],
    make_load: Callable[..., LoadSnapshot],
) -> None:
    store, track, source, clock = rig
    for second in range(80, 130):
        clock[0] = second
        fast = second >= 103
        p95 = 0.188 if fast else 0.412
        load = make_load(
            asked=64.0,
            ttft=LatencySummary(p95 / 2, p95, p95 * 2, 1640 if fast else 812, 10.0),
            output_tokens_per_s=6390.0 if fast else 3173.0,
        )
        beat_at(track, store, load, second, p95)
        if second == 101:
            track.marks.append(Mark(100.5, "seqs 64->256", effect=True))
        await source.sample()
    (event,) = store.events
    assert (event.level, event.time) == ("effect", 111.0)
    assert event.text == (
        "seqs 64->256: TTFT p95 412ms -> 188ms · tok/s 3,173 -> 6,390 · n=812, 1,640 in 10s"
    )


async def test_while_the_engine_is_down_nothing_is_noted(
    rig: tuple[Store, EngineTrack, EffectSource, list[float]],
    make_engine: Callable[..., EngineTrack],
) -> None:
    store, track, source, clock = rig
    record = make_engine("x").status.record  # type: ignore[union-attr]
    for second in range(80, 190):
        clock[0] = second
        down = 100 < second < 140
        track.status = EngineStatus(record, State.STARTING if down else State.READY, 0.0)
        if not down:
            beat_at(track, store, None, second, 0.4 if second <= 100 else 0.2)
        if second == 140:
            track.marks.append(Mark(140.0, "dtype a -> b", effect=True, since=100.5))
        await source.sample()
    (event,) = store.events
    assert event.text.startswith("dtype a -> b: TTFT p95 400ms -> 200ms · tok/s 3,000 -> 3,000")
    assert "the server's own" in event.text


def test_a_row_in_pieces_is_never_torn(store: Store, now: float) -> None:
    parts = (
        "seqs 64->256: TTFT p95 412ms -> 188ms", "tok/s 3,173 -> 6,390", "n=812, 1,640 in 10s",
    )  # fmt: skip
    store.events.append(Event(now, "effect", " · ".join(parts), parts))
    view, panel = View(store, now, zone=UTC), EventsPanel(id="events")
    wide = plain(panel.draw(view, 120, 8))
    assert " · ".join(parts) in wide[1]
    narrow = plain(panel.draw(view, 60, 8))
    assert parts[0] in narrow[1] and f"{parts[1]} · {parts[2]}" in narrow[2]
    assert all(part in " ".join(narrow) for part in parts)
    (bare,) = plain(panel.draw(view, 60, 1))
    assert parts[0] in bare and "tok/s" not in bare


def test_a_load_that_began_anew_is_measured_by_full_windows_alone() -> None:
    """As a restart leaves it: the client's first windows are of 0 s, of 1 s, ..."""
    effects = Effects()
    run(effects, range(80, 101), [], sides=("client",))
    told: list[tuple[int, Effect]] = []
    for second in range(101, 140):
        window = min(10.0, second - 101.0)
        if window:
            effects.add("client", replace(figures(float(second), second), window_s=window))
        else:
            effects.add("client", Figures(float(second), 0.0, None, None, 0, 4.0))
        effects.add_marks([CHANGE])
        told += [(second, effect) for effect in effects.due(float(second))]
    ((second, effect),) = told
    assert effect.after is not None and effect.after.window_s >= FULL_S
    assert effect.before is not None and effect.before.window_s == 10
    assert second < 115
    assert all(" 0s" not in part for part in effect_words(effect))


def test_loads_that_differ_are_named() -> None:
    ((_, effect),) = run(
        Effects(), range(80, 140), [CHANGE], asked=lambda second: 64.0 if second < 100 else 128.0
    )
    effect = replace(effect, before=figures(100.0, 100, 64.0))
    assert "different load: 64 -> 128" in effect_words(effect)


def test_a_key_of_the_load_is_told_by_its_levels_and_not_as_another_change() -> None:
    marks = [CHANGE, Mark(106.0, "load 66", load=True)]
    ((_, effect),) = run(
        Effects(), range(80, 140), marks, asked=lambda second: 64.0 if second < 106 else 66.0
    )
    assert not effect.disturbed
    assert "different load: 64 -> 66" in effect_words(effect)
