import re
from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName
from llmtop.analysis.series import SeriesName as S
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.conditions import Condition, Name
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.engines.core.records import EngineStatus, Left, State, Step
from llmtop.engines.core.samples import (
    EngineSample,
    GpuProcess,
    GpuSample,
    Latency,
    Quantile,
    Quantiles,
)
from llmtop.engines.logs.memory_report import MemoryReport
from llmtop.engines.vllm import adapter
from llmtop.loadgen.core.measures import Extent, Measure, Sources
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.loadgen.statistics.client_health import examined
from llmtop.tui.panels import speculation
from llmtop.tui.panels.charts.chart_kinds import CHARTS
from llmtop.tui.panels.charts.chart_panel import ChartPanel
from llmtop.tui.panels.engines import EnginesPanel
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.gpu import GpuPanel
from llmtop.tui.panels.keys import KeysPanel
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.panels.options import OptionsPanel
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.panels.startup import SmallPanel, StartupPanel, WelcomePanel
from llmtop.tui.panels.state import StatePanel
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.view.condition_words import OF_NUMBERS, WORDS
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.glyphs import ASCII, UNICODE, Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, to_ascii
from llmtop.values import replace
from tests.folders import ROOT
from tests.plain_rows import plain
from tests.tiers import first

# The roles that the stylesheet knows: any other has no look of its own.
ROLES = set(re.findall(r"canvas--([a-z0-9-]+)", (ROOT / "tui" / "llmtop.tcss").read_text()))
PANELS: dict[str, Callable[[], Panel]] = {
    "token": lambda: PerTokenPanel(id="token"),
    "cost": lambda: CostPanel(id="cost"),
    "pulse": lambda: Pulse(id="pulse"),
    "state": lambda: StatePanel(id="state"),
    "engines": lambda: EnginesPanel(id="engines"),
    "gpu": lambda: GpuPanel(id="gpu"),
    "load": lambda: LoadPanel(id="load"),
    "options": lambda: OptionsPanel(id="options"),
    "events": lambda: EventsPanel(id="events"),
    "startup": lambda: StartupPanel(id="startup"),
    "welcome": lambda: WelcomePanel(id="welcome"),
    "small": lambda: SmallPanel(id="small"),
    "keys": lambda: KeysPanel(id="keys"),
}
for name, kind in CHARTS.items():
    PANELS[name] = lambda kind=kind: ChartPanel(kind, id="chart")  # type: ignore[misc]


def text(panel: Panel, view: View, width: int = 60, height: int = 10) -> str:
    return "\n".join(plain(panel.draw(view, width, height)))


def spans(rows: list[Row]) -> list[tuple[str, str]]:
    return [span for row in rows for span in row]


@pytest.fixture
def view(store: Store, now: float) -> View:
    return View(store, now, zone=UTC)


def bare_store() -> Store:
    """An engine of which nothing is known yet."""
    track = EngineTrack("new", "vllm", "vLLM", "http://10.0.0.1:9000", owned=False)
    return Store(engines={"new": track}, selected="new")


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("size", [(30, 5), (40, 6), (60, 9), (80, 2), (120, 1), (66, 20)])
def test_every_panel_draws_what_is_known_and_what_is_not(
    name: str, size: tuple[int, int], store: Store, now: float
) -> None:
    for facts in (store, bare_store(), Store()):
        for glyphs in ({}, {"glyphs": ASCII}):
            view = View(facts, now, **glyphs)  # type: ignore[arg-type]
            rows = PANELS[name]().draw(view, *size)
            assert {role for row in rows for _, role in row} <= ROLES
            if glyphs:
                assert "".join(plain(to_ascii(row) for row in rows)).isascii()


def test_unknown_is_two_dashes_and_never_a_zero(now: float) -> None:
    lines = text(Pulse(id="pulse"), View(bare_store(), now), 120, 2)
    assert (
        "run --" in lines and "wait --" in lines and "TTFT p95 --" in lines and "-- tok/s" in lines
    )
    assert " 0" not in lines


def test_the_pulse_fits_its_line_at_any_width(view: View) -> None:
    for width in range(60, 220, 3):
        (row,) = plain(Pulse(id="pulse").draw(view, width, 1))
        facts = ["256/256", "wait", "64%"]
        facts += ["p95 2.42s", "n=461", "5,928 tok/s"] if width >= 76 else []
        for fact in facts:
            assert fact in row, (width, fact)


def test_the_state_is_the_first_word_at_any_width_and_is_never_cut(view: View) -> None:
    for width in range(30, 220, 3):
        row = StatePanel(id="state").draw(view, width, 1)[0]
        assert row[0] == (" OVERLOADED ", "badge-bad"), width
        line = plain([row])[0]
        assert len(line) == width
        assert "llama" in line, width
        if width >= 60:
            assert " queue grows 3.0/s" in line, width
        if width >= 100:
            assert "batch limit 256 reached, 102 waiting" in line, width
            assert "ready 1h12m" in line, width


@pytest.mark.parametrize(
    ("level", "role"),
    [
        (Level.HEADROOM, "badge-good"),
        (Level.NEAR_KNEE, "badge-warn"),
        (Level.SATURATED, "badge-hot"),
        (Level.OVERLOADED, "badge-bad"),
        (Level.HUNG, "badge-bad"),
    ],
)
def test_each_state_has_its_word_and_its_colour_in_one_place(
    store: Store, now: float, level: Level, role: str
) -> None:
    store.engines["llama"].load_state = LoadState(level, ("because",))
    row = StatePanel(id="state").draw(View(store, now), 80, 1)[0]
    assert row[0] == (f" {level.word.ljust(10)} ", role)
    assert plain([row])[0].index("because") == 13
    assert not view_is_louder(store, now)


@pytest.mark.parametrize("name", WORDS)
def test_an_engine_that_is_not_what_it_seems_says_so_in_its_state(
    store: Store, now: float, name: Name
) -> None:
    store.engines["llama"].conditions = (Condition(name, "so it is", "do that"),)
    row = StatePanel(id="state").draw(View(store, now), 120, 1)[0]
    assert row[0] == (f" {WORDS[name].ljust(10)} ", "badge-warn") and len(WORDS[name]) <= 10
    assert "so it is · do that" in plain([row])[0]


def test_other_findings_stand_beside_the_state(store: Store, now: float) -> None:
    store.engines["llama"].load_state = LoadState(Level.SATURATED, ("62 waiting",))
    found = Condition(Name.OLD_VERSION, "vLLM 0.8.5 is older than 0.20", "")
    store.engines["llama"].conditions = (found,)
    line = plain(StatePanel(id="state").draw(View(store, now), 140, 1))[0]
    assert line.startswith(" SATURATED   62 waiting · vLLM 0.8.5 is older than 0.20")


@pytest.mark.parametrize("name", sorted(OF_NUMBERS))
def test_what_limits_the_meaning_of_the_numbers_is_read_before_them(
    store: Store, now: float, name: Name
) -> None:
    store.engines["llama"].load_state = LoadState(Level.HEADROOM, ("3 of 64 running",))
    store.engines["llama"].conditions = (Condition(name, "so it is", ""),)
    line = plain(StatePanel(id="state").draw(View(store, now), 120, 1))[0]
    assert line.startswith(" HEADROOM    so it is · 3 of 64 running")


def test_every_condition_is_on_the_state_line(store: Store, now: float) -> None:
    elsewhere = {Name.HUNG, Name.FROZEN}  # states that the numbers, or their absence, give
    for name in set(Name) - elsewhere:
        store.engines["llama"].conditions = (Condition(name, "so it is", ""),)
        assert "so it is" in plain(StatePanel(id="state").draw(View(store, now), 120, 1))[0], name


def test_the_fullest_rank_stands_beside_the_mean(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.sample is not None
    track.sample = replace(track.sample, kv_usage_fullest=1.0)
    assert "fullest rank 100%" in text(Pulse(id="pulse"), View(store, now), 160, 1)
    track.sample = replace(track.sample, kv_usage_fullest=0.65)
    assert "fullest" not in text(Pulse(id="pulse"), View(store, now), 160, 1)


def test_speculation_that_is_not_known_is_unknown_and_not_off(now: float) -> None:
    def words(*values: tuple[str, OptionValue], owned: bool) -> str:
        track = EngineTrack("e", "vllm", "vLLM", "http://10.0.0.1:9000", owned=owned)
        specs = {spec.name: spec for spec in adapter.ADAPTER.options}
        track.options = tuple(
            Option(specs[name], value, None, None, None, Applies.RESTART) for name, value in values
        )
        facts = Store(engines={"e": track}, selected="e")
        return "".join(word for word, _ in speculation.state_words(View(facts, now)))

    tokens = "num_speculative_tokens"
    assert "unknown" in words((tokens, None), owned=False)
    assert "off" in words((tokens, 0), owned=False)
    assert "off" in words((tokens, None), owned=True)
    # Its method was named, and the number of tokens is the method's own.
    assert "on" in words((tokens, None), ("speculative_method", "mtp"), owned=True).split(",")[0]


def view_is_louder(store: Store, now: float) -> bool:
    """Whether anything but the state line has a colour behind its words."""
    return any(
        role.startswith("badge-")
        for name, make in PANELS.items()
        if name != "state"
        for row in make().draw(View(store, now), 80, 10)
        for _, role in row
    )


def test_without_numbers_of_now_the_line_says_what_the_process_does(
    store: Store, now: float
) -> None:
    track = store.engines["llama"]
    track.load_state = None
    assert text(StatePanel(id="state"), View(store, now), 80, 1).startswith(" READY")
    assert track.status is not None
    track.status = replace(track.status, state=State.STARTING, phase="CUDA graphs", since=now - 40)
    line = text(StatePanel(id="state"), View(store, now), 80, 1)
    assert line.startswith(" STARTING    CUDA graphs · for 40s")


def test_without_a_load_the_engines_own_ttft_shows_what_its_buckets_can_tell(
    store: Store, now: float
) -> None:
    store.load = None
    track = store.engines["llama"]
    own = Quantiles(None, Quantile(0.3, "<"), Quantile(80, ">"), 0.1, 12, 10.0)
    track.sample = EngineSample(now, 1.0, latencies={Latency.TTFT: own})
    pulse = text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "TTFT p95 <300ms mean 100ms n=12/10s" in pulse
    chart = text(ChartPanel(CHARTS["ttft"], id="ttft"), View(store, now))
    assert "server p95 <300ms  mean 100ms  n=12/10s" in chart


def test_a_range_is_shown_as_one_with_the_exact_mean_beside_it(store: Store, now: float) -> None:
    store.load = None
    for width in range(110, 200):
        rows = text(Pulse(id="pulse"), View(store, now), width, 1).splitlines()
        assert "p95 1-2.5s mean 600ms n=461" in rows[0], rows[0]
        assert "5,928 tok/s" in rows[0], rows[0]
    assert "TTFT p95 1-2.5s mean 600ms n=461/10s" in text(
        Pulse(id="pulse"), View(store, now), 130, 2
    )
    itl = text(ChartPanel(CHARTS["itl"], id="itl"), View(store, now)).splitlines()
    assert "server p95 25-50ms n=59k/10s" in itl[0] and "mean 21ms" in itl[-1]
    wide = text(ChartPanel(CHARTS["itl"], id="itl"), View(store, now), 80, 8).splitlines()
    assert "server p95 25-50ms n=59k/10s  mean 21ms" in wide[0] and "mean" not in wide[-1]


def test_too_few_for_a_percentile_leave_the_mean(store: Store, now: float) -> None:
    store.load = None
    own = Quantiles(Quantile(0.25, "-", 0.5), None, None, 0.31, 7, 10.0)
    store.engines["llama"].sample = EngineSample(now, 1.0, latencies={Latency.TTFT: own})
    pulse = text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "TTFT p95 -- mean 310ms n=7/10s" in pulse


def test_a_range_is_drawn_as_a_band_from_end_to_end(now: float) -> None:
    track = EngineTrack("one", "vllm", "vLLM", "http://127.0.0.1:8000", owned=False)
    view = View(Store(engines={"one": track}, selected="one"), now)

    def heights(low: float, high: float | None) -> tuple[int, int]:
        """From the first to the last row of the chart that has dots, the top one being 0."""
        track.series.clear()
        for second in range(60):
            track.record(SeriesName.TTFT_P95_LOW, now - 60 + second, low)
            track.record(SeriesName.TTFT_P95_HIGH, now - 60 + second, high)
        rows = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 80, 22).splitlines()[1:-1]
        drawn = [y for y, row in enumerate(rows) if any("\u2800" < c <= "\u28ff" for c in row)]
        return drawn[0], drawn[-1]

    top, bottom = heights(5.0, 10.0)
    assert bottom - top >= 5 and top > 0
    exact = heights(10.0, 10.0)
    assert exact[0] == exact[1]
    assert heights(5.0, None)[0] == 0  # more than that, and nothing says how much


def test_kv_tokens_do_not_stand_beside_an_unknown_share(store: Store, now: float) -> None:
    track = store.engines["llama"]
    track.record(SeriesName.KV_USAGE, now, None)
    view = View(store, now)
    assert "-- --/920k" in text(Pulse(id="pulse"), view, 160, 2)
    head = text(ChartPanel(CHARTS["kv"], id="kv"), view).splitlines()[0]
    assert "--  --/920k tok" in head and "589k" not in head


def test_stale_numbers_say_how_old_they_are(store: Store, now: float) -> None:
    store.engines["llama"].stale_since = now - 12
    assert "stale 12s" in text(StatePanel(id="state"), View(store, now), 120, 1)
    assert "stale 12s" in text(ChartPanel(CHARTS["kv"], id="kv"), View(store, now))


def test_a_chart_carries_numbers_window_and_the_words_of_the_newest_mark(view: View) -> None:
    lines = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 76, 8).splitlines()
    for words in ("TTFT", "p50 1.21s", "p95 2.42s", "n=461/10s", "server p95 1-2.5s n=461"):
        assert words in lines[0]
    assert "s ─" in lines[-1] and "max_num_seqs 128 → 256" in lines[-1]
    tokens = text(ChartPanel(CHARTS["tokens"], id="tokens"), view, 76, 8).splitlines()
    assert sum("╎" in line for line in tokens) >= 4


def test_a_percentile_never_stands_without_its_n(store: Store, view: View, now: float) -> None:
    track = store.engines["llama"]
    for _ in range(2):
        for cells in range(24, 130):
            head = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, cells, 8).splitlines()[0]
            assert head.count("n=") == head.count("server p95") + (" p95 2.42s" in head), head
            assert "p50" not in head or "n=461/10s" in head
            itl = text(ChartPanel(CHARTS["itl"], id="itl"), view, cells, 8).splitlines()[0]
            assert itl.count("n=") == itl.count("p95"), itl
        track.stale_since = now - 12
    small = text(ChartPanel(CHARTS["ttft"], id="ttft"), View(store, now), 40, 8)
    assert "p95 2.42s" in small and "n=461" in small and "stale 12s" in small
    track.stale_since = None
    narrow = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 40, 8).splitlines()[0]
    assert "p95 2.42s  n=461/10s" in narrow and "server" not in narrow
    wide = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 100, 8).splitlines()[0]
    assert "p99 3.63s  n=461/10s  server p95 1-2.5s n=461 " in wide
    assert track.sample is not None
    own = replace(track.sample.latencies[Latency.TTFT], n=81, window_s=5.0)
    track.sample = replace(track.sample, latencies={Latency.TTFT: own})
    wide = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 100, 8).splitlines()[0]
    assert "server p95 1-2.5s n=81/5s" in wide  # another window than the client's


def test_percentages_have_a_fixed_axis(view: View) -> None:
    assert "100%" in text(ChartPanel(CHARTS["kv"], id="kv"), view)


def test_a_gap_in_the_numbers_is_a_gap_in_the_chart(store: Store, now: float) -> None:
    series = store.engines["llama"].series
    kept = [(t, v) for t, v in series[S.KV_USAGE] if not now - 60 < t < now - 30]
    series[S.KV_USAGE] = type(series[S.KV_USAGE])()
    for time, value in kept:
        series[S.KV_USAGE].append(time, value)
    foot = text(ChartPanel(CHARTS["kv"], id="kv"), View(store, now)).splitlines()[-2]
    assert len(max(foot.strip("│ ").removeprefix("0").strip().split("⣿"), key=len)) >= 10


def test_an_axis_belongs_to_its_engine(
    store: Store, now: float, make_engine: Callable[..., EngineTrack]
) -> None:
    store.engines["small"] = make_engine("small", 8001)
    panel = ChartPanel(CHARTS["tokens"], id="tokens")
    assert "8k" in text(panel, View(store, now))
    store.selected = "small"
    assert "8k" not in text(panel, View(store, now))


def test_the_load_says_asked_achieved_and_failed(view: View) -> None:
    lines = text(LoadPanel(id="load"), view, 60, 12)
    for words in (
        "ramp 1..400 over 120s", "asked 358 streams", "in flight 358", "ok 3,939", "failed 3",
        "46.3 req/s", "oldest wait 2.7s", "2x connection reset", "client valid", "+ more", "0 stop",
    ):  # fmt: skip
        assert words in lines
    assert "hold" in lines and "resume" not in lines


def test_sends_that_were_late_or_never_left_are_shown(store: Store, now: float) -> None:
    assert store.load is not None
    quiet = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "late" not in quiet and "not sent" not in quiet
    store.load = replace(store.load, late=7, not_sent=2)
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "late 7" in lines and "not sent 2" in lines and "failed 3" in lines


def test_a_held_load_says_so_and_can_be_resumed(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    store.load = make_load(held=True)
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "held" in lines.splitlines()[0] and "space resume" in lines


def test_a_client_that_could_not_keep_up_is_a_warning(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    health = ClientHealth("client-bound, because workers used 98% of a core", "user space")
    store.load = make_load(health=health, errors={})
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "▲ client-bound, because workers used 98% of a core" in lines


def test_why_the_client_was_the_limit_is_said_at_every_width(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    def seconds(p50: float, p99: float) -> LatencySummary:
        return LatencySummary(p50, p50, p99, 461, 10.0)

    late = Extent(seconds(0.2, 0.4), seconds(0.2, 0.34), seconds(0.2, 0.4))
    gaps = Extent(seconds(0.016, 0.06), seconds(0.016, 0.02), seconds(0.016, 0.06), 0.03)
    sources = Sources(
        extents={Measure.TTFT: late, Measure.ITL: gaps}, tokens_per_s=900.0, turnaround=0.2
    )
    store.load = make_load(health=examined(ClientHealth("", "kernel"), sources), errors={})
    for width, said in (
        (30, "▲ client: TTFT p99 +-60ms"),
        (60, "▲ client: TTFT p99 +-60ms  ITL p99 +-40ms  tok/s +-25%"),
        (80, "▲ client: TTFT p99 +-60ms  ITL p99 +-40ms  tok/s +-25%  kernel clock"),
    ):
        lines = text(LoadPanel(id="load"), View(store, now), width, 12)
        assert said in lines and "lag p99" not in lines, lines


def test_a_client_that_is_short_of_something_is_no_warning_while_its_figures_hold(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    strained = ClientHealth("", "kernel", cpu=0.9, run_delay=0.4, strain=("core wait 40%",))
    store.load = make_load(health=examined(strained, Sources(tokens_per_s=900.0, turnaround=0.02)))
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "client valid" in lines and "▲ client" not in lines and "core wait" not in lines


def test_a_client_that_was_the_limit_is_said_before_latencies(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    health = ClientHealth("client-bound, because x", "kernel", causes=("reads lag 10ms",))
    store.load = make_load(health=health)
    lines = text(LoadPanel(id="load"), View(store, now), 40, 6)
    assert "▲ client: reads lag 10ms" in lines and "2x connection reset" in lines


def test_no_load_names_the_key_that_starts_one(store: Store, now: float) -> None:
    store.load = None
    assert "+ starts one" in text(LoadPanel(id="load"), View(store, now))
    assert "+" not in text(LoadPanel(id="load"), View(store, now, readonly=True))


def test_a_load_on_another_engine_is_not_shown_as_this_ones(store: Store, now: float) -> None:
    store.load_target = "other"
    assert "goes to other" in text(LoadPanel(id="load"), View(store, now))
    assert "server p95" in text(ChartPanel(CHARTS["ttft"], id="ttft"), View(store, now))


def test_a_load_without_any_answer_yet_shows_dashes(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    none = LatencySummary(None, None, None, 0, 10.0)
    store.load = make_load(ttft=none, tpot=none, requests_per_s=None, oldest_wait_s=None, errors={})
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "-- req/s" in lines and "oldest wait --" in lines


def test_options_say_value_launch_and_how_they_apply(view: View) -> None:
    lines = text(OptionsPanel(id="options"), view, 60, 8).splitlines()
    assert "2 changed since launch" in lines[0] and "o to change" in lines[0]
    assert lines[1].split() == [
        "│",
        "max_num_seqs",
        "256",
        "of",
        "1,024",
        "live",
        "to",
        "1,024",
        "│",
    ]
    assert "async_scheduling" in lines[4] and "on" in lines[4]
    assert "restart ~1m38s" in lines[5]


def test_an_option_that_a_killed_comparison_left_says_what_it_was(
    store: Store, now: float, view: View
) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    left = Left("compare", "max_num_seqs", 16, 8)
    track.status = replace(track.status, left=(left,))
    for width in (40, 78):
        lines = text(PANELS["options"](), view, width, 8).splitlines()
        assert "▲ was 16" in next(line for line in lines if "max_num_seqs" in line)
        assert "compare was killed: max_num_s" in lines[-1]
        assert all(len(line) <= width for line in lines)


def test_a_long_name_is_whole_beside_a_short_value_where_it_is_narrow(view: View) -> None:
    lines = text(OptionsPanel(id="options"), view, 40, 8).splitlines()
    assert lines[2] == "│ max_num_batched_tokens  8,192 live   │"
    assert lines[5] == "│ gpu_memory_utilization   0.92 restart│"


def test_an_event_is_cut_between_its_words(store: Store, now: float) -> None:
    store.events.append(Event(now, "info", "load: hold 4 for 5s, ramp 4..320 over 75s, hold 320"))
    line = text(EventsPanel(id="events"), View(store, now, zone=UTC), 60, 4).splitlines()[1]
    assert line.rstrip(" │").endswith("ramp 4..320 over 75s")


def test_engines_that_tell_no_options_say_why(store: Store, now: float) -> None:
    track = store.engines["llama"]
    track.options, track.options_note = (), "attached: its options cannot be read"
    assert "its options cannot be read" in text(OptionsPanel(id="options"), View(store, now))


def test_one_gpu_is_a_box_and_many_are_a_line_each(
    store: Store, now: float, make_gpu: Callable[..., GpuSample]
) -> None:
    one = text(GpuPanel(id="gpu"), View(store, now), 60, 5)
    for words in ("H200", "139.8 GiB", "used 131.2", "692/700 W", "▲ power cap", "61C"):
        assert words in one
    store.gpus = tuple(make_gpu(index) for index in range(8))
    lines = text(GpuPanel(id="gpu"), View(store, now), 70, 10).splitlines()
    assert "8 GPUs" in lines[0] and "5,536 W" in lines[0]
    assert [f"gpu {i} " in line for i, line in enumerate(lines[1:-1])] == [True] * 8


REPORT = MemoryReport(
    15.0 * 2**30,
    112.3 * 2**30,
    0.98 * 2**30,
    1.1 * 2**30,
    0.22 * 2**30,
    139.8 * 2**30,
    (4242, 4243),
)


def test_memory_of_the_engine_is_shown_part_by_part(
    store: Store, now: float, make_gpu: Callable[..., GpuSample]
) -> None:
    track = store.engines["llama"]
    track.memory_report = REPORT
    panel, view = GpuPanel(id="gpu"), View(store, now)
    lines = text(panel, view, 60, 5).splitlines()
    assert "131.2/139.8 GiB" in lines[0]
    assert "weights 15.0  KV 112.3 (used 71.9)  graphs 1.0  free 8.6" in lines[2]
    tall = text(panel, view, 66, 7)
    for words in ("activations 1.1", "other 1.8", "free 8.6", "692/700 W"):
        assert words in tall
    bar = lines[1].strip("│ ")
    assert bar.count("╍") == round(112.3 * 0.36 / 139.8 * 56)
    (line,) = text(panel, view, 80, 1).splitlines()
    assert "╍" in line and "131.2/139.8 GiB" in line
    # Another's memory is told apart, an engine on another GPU is not drawn on this one.
    mine, other = GpuProcess(4243, 120 * 2**30), GpuProcess(7, 11 * 2**30)
    store.gpus = (replace(make_gpu(), processes=(mine, other)),)
    assert "other processes 11.0" in text(panel, view, 70, 7)
    store.gpus = (replace(make_gpu(), processes=(other,)),)
    assert "weights" not in text(panel, view, 70, 7)
    store.gpus = tuple(make_gpu(n) for n in range(4))
    assert "╍" not in text(panel, view, 70, 10)
    store.gpus = (make_gpu(0), replace(make_gpu(1), processes=(mine,)))
    rows = text(panel, view, 90, 6).splitlines()
    assert ["╍" in row for row in rows] == [False, False, True, False, False, False]


@pytest.mark.parametrize("virtual", [False, True])
def test_what_holds_tokens_is_faded_while_it_is_stale(
    store: Store, now: float, virtual: bool
) -> None:
    track = store.engines["llama"]
    track.memory_report = replace(REPORT, simulated=virtual, pids=() if virtual else REPORT.pids)
    panel, view = GpuPanel(id="gpu"), View(store, now)
    assert ("71.9", STRONG) in spans(panel.draw(view, 60, 5))
    track.stale_since = now - 12
    faded = spans(panel.draw(view, 60, 5))
    assert not [span for span in faded if "71.9" in span[0] and span[1] != MUTED]
    assert any("71.9" in words for words, _ in faded)
    assert [role for words, role in faded if words == ("10.2" if virtual else "8.6")] == [STRONG]


@pytest.mark.parametrize("width", first(3, [38, 46, 60, 80, 118]))
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_the_words_of_a_mark_are_never_torn(
    store: Store, now: float, width: int, glyphs: Glyphs
) -> None:
    label = "max_num_batched_tokens 8,192 -> 16,384, max_model_len 8,192"
    store.engines["llama"].marks.append(Mark(now - 5, label))
    for name, kind in CHARTS.items():
        panel = ChartPanel(kind, id=name)
        border = text(panel, View(store, now, glyphs=glyphs), width).splitlines()[-1]
        assert len(border) == width
        told = border.rpartition("max_num_batched_tokens")[2].strip(" ─╯+-.…>,")
        whole = label.removeprefix("max_num_batched_tokens").replace(",", "").split()
        assert "max_num" not in border or "max_num_batched_tokens" in border, border
        if "max_num" in border and told:
            words = told.replace(",", "").replace("->", " ").split()
            assert all(word in whole for word in words), border
            assert "16384" in words, border  # never what it was without what it became


def test_memory_of_a_simulated_engine_says_that_it_is_simulated(store: Store, now: float) -> None:
    track = store.engines["llama"]
    track.memory_report, track.simulated = replace(REPORT, simulated=True, pids=()), True
    for gpus in ((), store.gpus):
        store.gpus = gpus
        box = text(GpuPanel(id="gpu"), View(store, now), 60, 5)
        assert "simulated" in box and "no such GPU" in box
        assert "weights 15.0" in box and "free 10.2" in box and "W" not in box
        (line,) = text(GpuPanel(id="gpu"), View(store, now), 80, 1).splitlines()
        assert "simulated" in line and "free 10.2" in line
    assert text(GpuPanel(id="gpu"), View(store, now, glyphs=ASCII), 60, 5).count("=") > 5


def test_a_machine_without_gpu_says_so(store: Store, now: float) -> None:
    store.gpus = ()
    assert "no GPU here" in text(GpuPanel(id="gpu"), View(store, now))
    store.gpu_note = "NVML: driver not loaded"
    assert "driver not loaded" in text(GpuPanel(id="gpu"), View(store, now))
    store.engines["llama"].simulated = True
    assert "simulated GPU" in text(GpuPanel(id="gpu"), View(store, now))
    assert "simulated" in text(StatePanel(id="state"), View(store, now), 120, 1)
    store.engines["llama"].load_state = LoadState(Level.SATURATED, ("batch limit 128 reached",))
    assert "simulated" in text(StatePanel(id="state"), View(store, now), 80, 1)


def test_what_the_driver_does_not_tell_is_left_out(store: Store, now: float) -> None:
    store.gpus = (GpuSample(now, 0, "Some GPU", "GPU-0"),)
    lines = text(GpuPanel(id="gpu"), View(store, now), 60, 5)
    assert "used -- GiB" in lines and "util --" in lines and "power" not in lines


def test_events_are_newest_first_with_their_time(view: View) -> None:
    lines = text(EventsPanel(id="events"), view, 70, 6).splitlines()
    assert "07:59:21 max_num_seqs 128 → 256" in lines[1]
    assert "06:49:38 llama is ready" in lines[2]
    assert text(EventsPanel(id="events"), view, 70, 1).count("\n") == 0


def test_a_start_shows_phase_time_and_the_log(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    record = replace(track.status.record, started_at=now - 40)
    track.status = EngineStatus(record, State.STARTING, now - 40, "loading weights")
    track.log_tail = "first\nsecond \x1b[31mline\x1b[0m\n"
    lines = text(StartupPanel(id="startup"), View(store, now), 80, 16)
    for words in ("starting", "loading weights", "40s", "1m30s last time", "second line"):
        assert words in lines


def test_a_start_lists_its_phases_against_the_last_start(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    steps = (Step("weights", 1.49, 1.6), Step("compile", 11.24, 17.2), Step("CUDA graphs", 3.7))
    record = replace(track.status.record, started_at=now - 40)
    track.status = EngineStatus(record, State.STARTING, now - 40, "CUDA graphs", steps)
    panel, view = StartupPanel(id="startup"), View(store, now)
    lines = [line.strip("│ ") for line in text(panel, view, 80, 18).splitlines()]
    assert "weights        1.49s (1.6s last time)" in lines
    assert "compile        11.2s (17.2s last time)" in lines
    assert "CUDA graphs       3s" in lines
    # In a small box the newest stay, and nothing pushes the log out.
    track.log_tail = "the last line"
    small = text(panel, view, 80, 12)
    assert "CUDA graphs       3s" in small and "weights " not in small
    assert "the last line" in small


def test_an_end_shows_its_cause_and_the_way_out(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    record = replace(
        track.status.record, exit_code=1, ended_at=now - 9, cause="no memory for the KV cache",
        advice="lower gpu_memory_utilization",
    )  # fmt: skip
    track.status = EngineStatus(record, State.FAILED, now - 9)
    lines = text(StartupPanel(id="startup"), View(store, now), 80, 16)
    for words in ("failed", "no memory for the KV cache", "lower gpu_", "exit code 1", "9s ago"):
        assert words in lines


def test_an_end_shows_the_log_lines_of_its_cause(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    record = replace(
        track.status.record,
        ended_at=now - 9,
        cause="out of GPU memory",
        excerpt=("raised here", "torch.OutOfMemoryError"),
    )
    track.status = EngineStatus(record, State.FAILED, now - 9)
    lines = text(StartupPanel(id="startup"), View(store, now), 80, 16)
    assert "raised here" in lines and "torch.OutOfMemoryError" in lines


def test_a_stop_that_was_asked_for_is_no_end_without_a_reason(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    shown = {}
    for state in (State.STOPPED, State.LOST):
        record = replace(track.status.record, ended_at=now - 9)
        track.status = EngineStatus(record, state, now - 9)
        shown[state] = text(StartupPanel(id="startup"), View(store, now), 80, 16)
    assert "it was stopped" in shown[State.STOPPED] and "reason" not in shown[State.STOPPED]
    assert "it ended without a reason in its log" in shown[State.LOST]


def test_keys_name_only_what_works_now(store: Store, now: float) -> None:
    keys = KeysPanel(id="keys")
    assert "options" in text(keys, View(store, now), 100, 1)
    assert "next engine" not in text(keys, View(store, now), 100, 1)
    assert "options" not in text(keys, View(Store(), now), 100, 1)
    store.load = None
    assert "+ start a load at 1" in text(keys, View(store, now), 100, 1)
    assert "+ start" not in text(keys, View(store, now, readonly=True), 100, 1)


def test_several_engines_each_have_a_line(
    store: Store, now: float, make_engine: Callable[..., EngineTrack]
) -> None:
    for number in range(2, 13):
        store.engines[f"e{number}"] = make_engine(f"e{number}", 8000 + number)
    panel = EnginesPanel(id="engines")
    assert "▸ llama" in text(panel, View(store, now), 100, 3)
    assert [line[:3] for line in text(panel, View(store, now), 100, 3).splitlines()] == [
        " ▸ ", "   ", "+9 ",
    ]  # fmt: skip
    store.selected = "e12"
    assert "▸ e12" in text(panel, View(store, now), 100, 3)
    assert text(panel, View(store, now), 100, 3).splitlines()[0].startswith("+9 e10")
    store.selected = "e6"
    marks = [line[:3] for line in text(panel, View(store, now), 100, 3).splitlines()]
    assert marks == ["+4 ", " ▸ ", "+5 "]
    for number in range(13, 203):
        store.engines[f"e{number}"] = make_engine(f"e{number}", 8000 + number)
    assert text(panel, View(store, now), 100, 3).splitlines()[2].startswith("99+")
    assert text(panel, View(store, now), 100, 1).splitlines()[0].startswith(" ▸ e6")


def test_the_options_of_an_engine_that_has_ended_say_so_and_nothing_of_its_socket(
    store: Store, now: float
) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    track.options_note = "the engine does not answer on its live-option socket"
    assert "socket" in text(OptionsPanel(id="options"), View(store, now), 100, 9)
    track.status = replace(track.status, state=State.STOPPED)
    shown = text(OptionsPanel(id="options"), View(store, now), 100, 9)
    assert "llama was stopped" in shown and "socket" not in shown


def test_an_engine_that_is_wanted_and_does_not_answer_has_a_line_too(
    store: Store, now: float
) -> None:
    store.missing["http://10.0.0.7:8000"] = "nothing answers\x1b[2J"
    lines = text(EnginesPanel(id="engines"), View(store, now), 60, 3).splitlines()
    assert "▸ llama" in lines[0]
    assert "10.0.0.7:8000" in lines[1]
    assert "▲ not there: nothing answers" in lines[1]
    assert lines[1].isprintable()


def test_hostile_names_stay_text(store: Store, now: float) -> None:
    evil = "\x1b]0;owned\x07[red]x[/red]\x1b[2J\u202e\r\nnew" + "A" * 5000
    track = store.engines["llama"]
    assert track.status is not None
    track.name = track.title = track.model = track.version = track.options_note = evil
    track.url, track.log_tail, track.trouble = evil, evil, evil
    record = replace(track.status.record, cause=evil, advice=evil, command=(evil,))
    store.events.append(Event(now, "error", evil))
    store.gpus = (replace(store.gpus[0], name=evil, throttle=(evil,)),)
    track.marks[-1] = replace(track.marks[-1], label=evil)
    for state in (State.READY, State.STARTING, State.FAILED):
        track.status = EngineStatus(record, state, now - 5, evil)
        for make in PANELS.values():
            for width, height in ((58, 9), (100, 2), (40, 1)):
                for line in plain(make().draw(View(store, now), width, height)):
                    assert "\x1b" not in line and "\x07" not in line and "\u202e" not in line
                    assert "owned" not in line and "\n" not in line and "\r" not in line
                    assert line.isprintable()


def test_a_load_that_ended_is_no_longer_what_ttft_is_now(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    store.load = make_load(running=False, in_flight=0)
    assert "TTFT p95 1-2.5s" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "ended" in lines and "+ starts one stream" in lines


def test_an_engine_that_does_not_run_shows_no_old_numbers(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    track.status = replace(track.status, state=State.FAILED)
    lines = text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "run --" in lines and "-- tok/s" in lines
    assert text(StatePanel(id="state"), View(store, now), 120, 1).startswith(" FAILED")
    assert "o to change" not in text(OptionsPanel(id="options"), View(store, now))


def test_why_numbers_are_stale(store: Store, now: float) -> None:
    track = store.engines["llama"]
    track.stale_since, track.trouble = now - 3, "connection refused"
    line = text(StatePanel(id="state"), View(store, now), 120, 1)
    assert line.startswith(" NO ANSWER   connection refused · stale 3s")
    assert track.status is not None
    track.status = replace(track.status, state=State.STOPPED)
    ended = text(StatePanel(id="state"), View(store, now), 120, 1)
    assert ended.startswith(" STOPPED") and "stale" not in ended and "refused" not in ended


def test_more_gpus_than_lines_are_counted(
    store: Store, now: float, make_gpu: Callable[..., GpuSample]
) -> None:
    store.gpus = tuple(make_gpu(index) for index in range(16))
    lines = text(GpuPanel(id="gpu"), View(store, now), 60, 7).splitlines()
    assert " 7 " in lines[4] and "and 8 more" in lines[5]


def test_keys_of_the_load_leave_whole(view: View) -> None:
    for width in range(22, 70):
        foot = text(LoadPanel(id="load"), view, width, 6).splitlines()[-1]
        assert len(foot) == width
        assert set(foot.strip("╰╯─ ").split()) <= set(
            [
                "+",
                "more",
                "-",
                "less",
                "space",
                "hold",
                "b",
                "burst",
                "0",
                "stop",
                "+-",
                "X",
                "cut",
                "u",
                "unit",
            ]
        )


def test_stale_numbers_are_faded_with_their_age_and_no_verdict_is_made_of_them(
    store: Store, now: float, make_engine: Callable[..., EngineTrack]
) -> None:
    track, other = store.engines["llama"], make_engine("other", 8001)
    store.engines["other"] = other
    other.sample = track.sample
    store.load = None
    fresh = View(store, now)
    strong = {words for words, role in Pulse(id="pulse").draw(fresh, 120, 1)[0] if role == STRONG}
    assert {"256", "64%"} & strong
    track.stale_since = other.stale_since = now - 14
    for width in (80, 120):
        (row,) = Pulse(id="pulse").draw(View(store, now), width, 1)
        assert {role for _, role in row} <= {MUTED, TEXT, FAINT}
        line = text(StatePanel(id="state"), View(store, now), width, 1)
        assert "stale 14s" in line and "OVERLOADED" not in line
    for panel in (PerTokenPanel(id="token"), CostPanel(id="cost")):
        rows = panel.draw(View(store, now), 60, 6)
        assert "stale 14s" in "".join(words for words, _ in rows[0])
        assert not any(role == STRONG for row in rows[1:] for _, role in row)
    lines = EnginesPanel(id="engines").draw(View(store, now), 120, 2)
    assert not any(role == STRONG for _, role in lines[1])


def test_unified_memory_is_labelled_and_counted_once(store: Store, now: float) -> None:
    gib = 2**30
    one = GpuSample(
        now, 0, "NVIDIA GB10", "GPU-0", 120 * gib, 30 * gib, utilisation=0.1, unified=True
    )
    store.engines["llama"].memory_report = None
    store.gpus = (one,)
    view = View(store, now)
    assert "120.0 GiB unified" in text(GpuPanel(id="gpu"), view, 60, 7)
    assert "30.0/120.0 GiB unified" in text(GpuPanel(id="gpu"), view, 120, 1)
    store.gpus = (one, replace(one, index=1, uuid="GPU-1"))
    assert "30.0/120.0 GiB" in text(GpuPanel(id="gpu"), View(store, now), 80, 7).splitlines()[0]


def test_the_queue_chart_shows_the_queue_limit_for_as_long_as_there_is_one(
    store: Store, now: float
) -> None:
    track = store.engines["llama"]
    for name in (S.RUNNING, S.WAITING, S.CAP):
        track.series.pop(name, None)

    def drawn() -> str:
        return text(ChartPanel(CHARTS["queue"], id="queue"), View(store, now), 100, 12)

    assert "┄" not in drawn() and "queue limit" not in drawn()
    for second in range(60):
        limit = None if second < 20 else 40 if second < 40 else 16
        track.record(S.WAITING, now - 59 + second, 30.0)
        track.record(S.QUEUE_LIMIT, now - 59 + second, limit)
    rows = [row for row in drawn().splitlines() if "┄" in row]
    assert len(rows) == 2  # a step down
    assert "queue limit 16" in drawn()


def test_a_chart_is_coloured_where_it_is_full_and_its_box_like_the_state(
    store: Store, now: float
) -> None:
    """KV at its end, and as many running as the batch limit allows."""
    track = store.engines["llama"]
    for second in range(30):
        track.record(S.KV_USAGE, now - 29 + second, 0.99)
    view = View(store, now)

    def roles(name: str) -> set[str]:
        rows = ChartPanel(CHARTS[name], id=name).draw(view, 60, 9)
        return {role for row in rows[1:-1] for text, role in row[1:-1] if text.strip()}

    def box(name: str) -> str:
        return ChartPanel(CHARTS[name], id=name).draw(view, 60, 9)[0][0][1]

    assert {"kv", "hot"} <= roles("kv")  # the past keeps its colour
    assert {"running", "hot"} <= roles("queue")
    assert (box("queue"), box("kv")) == ("bad", "faint")
    track.load_state = LoadState(Level.SATURATED, ("KV full",), limits=("kv",))
    assert (box("queue"), box("kv")) == ("faint", "hot")
    track.load_state = LoadState(Level.HEADROOM, ("nothing waits",), limits=("kv",))
    assert (box("queue"), box("kv")) == ("faint", "faint")
