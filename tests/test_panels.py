from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.engines.anatomy import Anatomy
from llmtop.engines.records import EngineStatus, Left, State, Step
from llmtop.engines.samples import EngineSample, GpuProcess, GpuSample, Latency, Quantile, Quantiles
from llmtop.loadgen.health import judge
from llmtop.loadgen.plan import Loop
from llmtop.loadgen.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.tui.marks import Mark
from llmtop.tui.panels.charts import CHARTS, ChartPanel
from llmtop.tui.panels.engines import EnginesPanel
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.gpu import GpuPanel
from llmtop.tui.panels.keys import KeysPanel
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.panels.options import OptionsPanel
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.panels.startup import SmallPanel, StartupPanel, WelcomePanel
from llmtop.tui.panels.view import View
from llmtop.tui.series import SeriesName as S
from llmtop.tui.store import EngineTrack, Event, Store
from llmtop.tui.widgets.canvas import ROLES
from llmtop.tui.widgets.glyphs import ASCII, UNICODE, Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, plain, to_ascii
from llmtop.values import replace

PANELS: dict[str, Callable[[], Panel]] = {
    "token": lambda: PerTokenPanel(id="token"),
    "cost": lambda: CostPanel(id="cost"),
    "pulse": lambda: Pulse(id="pulse"),
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
            assert {role for row in rows for _, role in row} <= set(ROLES)
            if glyphs:
                assert "".join(plain(to_ascii(row) for row in rows)).isascii()


def test_unknown_is_two_dashes_and_never_a_zero(now: float) -> None:
    lines = text(Pulse(id="pulse"), View(bare_store(), now), 120, 2)
    assert (
        "run --" in lines and "wait --" in lines and "TTFT p95 --" in lines and "-- tok/s" in lines
    )
    assert " 0" not in lines


def test_the_pulse_fits_its_two_lines_at_any_width(view: View) -> None:
    for width in range(60, 220, 3):
        rows = plain(Pulse(id="pulse").draw(view, width, 2))
        assert len(rows) == 2
        both = " ".join(rows)
        for fact in ("ready", "256/256", "wait", "64%", "p95 2.42s", "n=461"):
            assert fact in both, (width, fact)


def test_the_pulse_says_saturation_in_words(view: View) -> None:
    assert "▲ past knee" in text(Pulse(id="pulse"), view, 120, 2)
    assert "▲ past knee" in text(Pulse(id="pulse"), view, 80, 2)


def test_without_a_load_the_engines_own_ttft_shows_what_its_buckets_can_tell(
    store: Store, now: float
) -> None:
    store.load = None
    track = store.engines["llama"]
    own = Quantiles(None, Quantile(0.3, "<"), Quantile(80, ">"), 0.1, 12, 10.0)
    track.sample = EngineSample(now, 1.0, latencies={Latency.TTFT: own})
    assert "TTFT p95 <300ms n=12/10s" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    chart = text(ChartPanel(CHARTS["ttft"], id="ttft"), View(store, now))
    assert "server p95 <300ms" in chart and "n=12/10s" in chart


def test_stale_numbers_say_how_old_they_are(store: Store, now: float) -> None:
    store.engines["llama"].stale_since = now - 12
    assert "stale 12s" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "stale 12s" in text(ChartPanel(CHARTS["kv"], id="kv"), View(store, now))


def test_a_chart_carries_numbers_window_and_the_words_of_the_newest_mark(view: View) -> None:
    lines = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 76, 8).splitlines()
    for words in ("TTFT", "p50 1.21s", "p95 2.42s", "n=461/10s", "server p95 1.9s"):
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
    assert "p99 3.63s  n=461/10s  server p95 1.9s n=461 " in wide
    assert track.sample is not None
    own = replace(track.sample.latencies[Latency.TTFT], n=81, window_s=5.0)
    track.sample = replace(track.sample, latencies={Latency.TTFT: own})
    wide = text(ChartPanel(CHARTS["ttft"], id="ttft"), view, 100, 8).splitlines()[0]
    assert "server p95 1.9s n=81/5s" in wide  # another window than the client's


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
    def seconds(p50: float, p95: float, p99: float) -> LatencySummary:
        return LatencySummary(p50, p95, p99, 461, 10.0)

    health = judge(
        clock="kernel", loop=Loop.CLOSED, itl=seconds(0.016, 0.03, 0.04),
        ttft=seconds(0.2, 0.3, 0.4), lag=seconds(0.001, 0.004, 0.01), lateness=None,
        cpu=0.98, run_delay=None, lost=3,
    )  # fmt: skip
    store.load = make_load(health=health, errors={})
    for width, said in (
        (30, "▲ client: worker CPU 98%"),
        (40, "▲ client-bound: worker CPU 98%"),
        (60, "▲ client-bound: worker CPU 98%  reads lag 10ms"),
        (80, "▲ client-bound: worker CPU 98%  reads lag 10ms  3 records lost"),
    ):
        lines = text(LoadPanel(id="load"), View(store, now), width, 12)
        assert said in lines and "lag p99" not in lines, lines


def test_a_client_that_was_the_limit_is_said_before_latencies(
    store: Store, now: float, make_load: Callable[..., LoadSnapshot]
) -> None:
    health = ClientHealth("client-bound, because x", "kernel", causes=("reads lag 10ms",))
    store.load = make_load(health=health)
    lines = text(LoadPanel(id="load"), View(store, now), 40, 6)
    assert "▲ client-bound: reads lag 10ms" in lines and "2x connection reset" in lines


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
    assert line.rstrip(" │").endswith("ramp 4..320 over 75s,…")


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


ANATOMY = Anatomy(
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
    track.anatomy = ANATOMY
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
    track.anatomy = replace(ANATOMY, simulated=virtual, pids=() if virtual else ANATOMY.pids)
    panel, view = GpuPanel(id="gpu"), View(store, now)
    assert ("71.9", STRONG) in spans(panel.draw(view, 60, 5))
    track.stale_since = now - 12
    faded = spans(panel.draw(view, 60, 5))
    assert not [span for span in faded if "71.9" in span[0] and span[1] != MUTED]
    assert any("71.9" in words for words, _ in faded)
    assert [role for words, role in faded if words == ("10.2" if virtual else "8.6")] == [STRONG]


@pytest.mark.parametrize("width", [38, 46, 60, 80, 118])
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
    track.anatomy, track.simulated = replace(ANATOMY, simulated=True, pids=()), True
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
    assert "simulated" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "simulated" in text(Pulse(id="pulse"), View(store, now), 80, 2)


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


def test_a_stop_that_was_asked_for_is_no_end_without_a_reason(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    shown = {}
    for state in (State.STOPPED, State.LOST):
        record = replace(track.status.record, ended_at=now - 9)
        track.status = EngineStatus(record, state, now - 9)
        shown[state] = text(StartupPanel(id="startup"), View(store, now), 80, 16)
    assert "it was stopped" in shown[State.STOPPED] and "reason" not in shown[State.STOPPED]
    assert "it ended and left no reason" in shown[State.LOST]


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
    assert "TTFT p95 1.9s" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    lines = text(LoadPanel(id="load"), View(store, now), 60, 12)
    assert "ended" in lines and "+ starts one at 1" in lines


def test_an_engine_that_does_not_run_shows_no_old_numbers(store: Store, now: float) -> None:
    track = store.engines["llama"]
    assert track.status is not None
    track.status = replace(track.status, state=State.FAILED)
    lines = text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "failed" in lines and "run --" in lines and "-- tok/s" in lines
    assert "o to change" not in text(OptionsPanel(id="options"), View(store, now))


def test_why_numbers_are_stale(store: Store, now: float) -> None:
    track = store.engines["llama"]
    track.stale_since, track.trouble = now - 3, "connection refused"
    assert "connection refused" in text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert track.status is not None
    track.status = replace(track.status, state=State.STOPPED)
    ended = text(Pulse(id="pulse"), View(store, now), 120, 2)
    assert "stopped" in ended and "stale" not in ended and "refused" not in ended


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
    assert "▲" in text(Pulse(id="pulse"), fresh, 120, 2)
    strong = {words for words, role in Pulse(id="pulse").draw(fresh, 120, 2)[1] if role == STRONG}
    assert {"256", "64%"} & strong
    track.stale_since = other.stale_since = now - 14
    for width in (80, 120):
        rows = Pulse(id="pulse").draw(View(store, now), width, 2)
        assert "stale 14s" in "".join(words for words, _ in rows[0])
        assert {role for _, role in rows[1]} <= {MUTED, TEXT, FAINT}
        assert "knee" not in "".join(words for words, _ in rows[1])
    for panel in (PerTokenPanel(id="token"), CostPanel(id="cost")):
        rows = panel.draw(View(store, now), 60, 6)
        assert "stale 14s" in "".join(words for words, _ in rows[0])
        assert not any(role == STRONG for row in rows[1:] for _, role in row)
    lines = EnginesPanel(id="engines").draw(View(store, now), 120, 2)
    assert not any(role == STRONG for _, role in lines[1])
