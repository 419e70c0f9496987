"""A store as it is after two minutes under a growing load, for the tests of the screen.

Also what a whole run of the tests needs: signals, and the end of what it started.
"""

import gc
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import cache

import pytest
from hypothesis import settings
from textual.pilot import Pilot

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.state_rules import LoadState
from llmtop.engines.core.options import Applies, Option, OptionSpec, OptionValue
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency, Quantile, Quantiles
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.widgets.canvas import Canvas
from tests import idle, interruption, started
from tests.fake_control import FakeControl
from tests.plain_rows import plain
from tests.scheduling import ModulesTogether

# The same examples at every run: what a test finds must be there again when it is looked into.
settings.register_profile("llmtop", derandomize=True, deadline=None)
settings.load_profile("llmtop")

# A worker is ended by the run that it belongs to. Ctrl+C in a terminal reaches it too, and must
# not take its results with it. It has a handler, because what the tests start would inherit that
# a signal is ignored, as a shell's background job and nohup do it.
WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    signal.signal(signal.SIGINT, lambda *_: None)
else:
    interruption.listen()
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ.setdefault("LLMTOP_HISTORY", "off")  # tests about the history turn it on

gc.disable()  # until all tests are imported: nothing of that is garbage
OURS = started.begin()
idle.use()


def pytest_collection_finish() -> None:
    """What is there by now lives to the end of the run: no later collection looks at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """The last moment of a run, whole or interrupted: its workers have ended."""
    if OURS:
        started.end_left(os.environ[started.RUN])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ModulesTogether:
    """Whatever ``--dist`` says."""
    return ModulesTogether(config, log)


NOW = 1_800_000_000.0
GIB = 2**30


def option(name: str, value: OptionValue, launch: OptionValue, applies: Applies) -> Option:
    kinds: dict[type, type[int] | type[float] | type[bool] | type[str]]
    kinds = {int: int, float: float, bool: bool, str: str}
    spec = OptionSpec(name, f"--{name}", f"what {name} limits", applies, kinds[type(launch)])
    top = launch if isinstance(launch, int) and applies is Applies.LIVE_UP_TO_LAUNCH else None
    return Option(spec, value, launch, 1, top, applies)


def record(name: str, port: int = 8000) -> EngineRecord:
    spec = LaunchSpec("vllm", name, "org/model-8b", "127.0.0.1", port)
    return EngineRecord(
        spec, ("vllm", "serve", "org/model-8b"), (), 4242, 1, "boot", f"http://127.0.0.1:{port}",
        "/log", None, NOW - 4320, startup_s=98.0, previous_startup_s=90.0,
    )  # fmt: skip


def engine(name: str, port: int = 8000) -> EngineTrack:
    track = EngineTrack(name, "vllm", "vLLM", f"http://127.0.0.1:{port}", True, version="0.26.0")
    track.model = "org/model-8b"
    track.status = EngineStatus(record(name, port), State.READY, NOW - 4320)
    track.options = (
        option("max_num_seqs", 256, 1024, Applies.LIVE_UP_TO_LAUNCH),
        option("max_num_batched_tokens", 8192, 8192, Applies.LIVE_UP_TO_LAUNCH),
        option("num_speculative_tokens", 0, 3, Applies.LIVE),
        option("async_scheduling", True, True, Applies.LIVE),
        option("gpu_memory_utilization", 0.92, 0.92, Applies.RESTART),
    )
    return track


def fill(track: EngineTrack) -> None:
    """Two minutes: load grows by three streams a second, the batch is capped at 128, then 256."""
    for second in range(120):
        time = NOW - 119 + second
        asked = 1 + 3.0 * second
        cap = 128 if second < 80 else 256
        running = min(asked, cap)
        waiting = max(0.0, asked - cap)
        tokens = 6900 * running / (running + 42)
        p50 = 0.02 + 0.0006 * running + 0.01 * waiting
        values: dict[str, float | None] = {
            S.RUNNING: running, S.WAITING: waiting, S.CAP: cap,
            S.KV_USAGE: running / 400, S.OUTPUT_TOKENS: tokens, S.PROMPT_TOKENS: tokens * 4,
            S.TTFT_P95_LOW: p50 * 1.5, S.TTFT_P95_HIGH: p50 * 2, S.TTFT_MEAN: p50 * 1.1,
            S.ITL_P95_LOW: 0.006, S.ITL_P95_HIGH: 0.006 + running * 1e-4, S.ITL_MEAN: 0.005,
            S.REQUESTS: tokens / 128,
            S.ASKED: asked, S.ACHIEVED: running, S.OLDEST_WAIT: p50 * 2.2,
            S.CLIENT_TTFT_P50: p50, S.CLIENT_TTFT_P95: p50 * 2,
        }  # fmt: skip
        for name, value in values.items():
            track.record(name, time, value)
    track.marks.append(Mark(NOW - 39, "max_num_seqs 128 → 256"))
    ttft = Quantiles(
        Quantile(0.25, "-", 0.5), Quantile(1.0, "-", 2.5), Quantile(2.5, "-", 5.0), 0.6, 461, 10.0
    )
    itl = Quantiles(None, Quantile(0.025, "-", 0.05), None, 0.021, 59_000, 10.0)
    track.sample = EngineSample(
        NOW, 1.0, track.model, 256, 102, 0.64, 588_800, 920_000, 5927.0, 23_708.0, 46.3,
        prefix_hit_rate=0.26, preemptions=0, latencies={Latency.TTFT: ttft, Latency.ITL: itl},
    )  # fmt: skip


def state_of(track: EngineTrack) -> LoadState:
    """The state that a screen which was open all the time shows."""
    states, columns = LoadStates(), {name: dict(points) for name, points in track.series.items()}
    for time in columns[S.RUNNING]:
        found = states.note(
            Moment(
                time, columns[S.RUNNING][time], columns[S.WAITING][time], columns[S.CAP][time],
                columns[S.KV_USAGE][time], 0.0, columns[S.OUTPUT_TOKENS][time],
                columns[S.CLIENT_TTFT_P95][time], columns[S.OLDEST_WAIT][time],
            )
        )  # fmt: skip
    return found


@cache
def _state_of_the_filled() -> LoadState:
    track = engine("llama")
    fill(track)
    return state_of(track)


def snapshot(**changes: object) -> LoadSnapshot:
    def summary(p50: float | None, n: int = 461) -> LatencySummary:
        if p50 is None:
            return LatencySummary(None, None, None, 0, 10.0)
        return LatencySummary(p50, p50 * 2, p50 * 3, n, 10.0)

    values: dict[str, object] = {
        "time": NOW, "loop": "closed", "shape": "ramp 1..400 over 120s", "running": True,
        "held": False, "asked": 358.0, "in_flight": 358, "waiting_first": 102, "sent": 4300,
        "ok": 3939, "failed": 3, "cut": 0, "window_s": 10.0, "requests_per_s": 46.3,
        "output_tokens_per_s": 5927.0, "oldest_wait_s": 2.7, "ttft": summary(1.21),
        "tpot": summary(0.018), "itl": summary(0.016), "e2e": summary(3.4),
        "health": ClientHealth("valid", "kernel", lag=summary(7e-6)),
        "errors": {"connection reset": 2, "status 500": 1},
    }  # fmt: skip
    return LoadSnapshot(**{**values, **changes})  # type: ignore[arg-type]


def gpu(index: int = 0) -> GpuSample:
    return GpuSample(
        NOW, index, "NVIDIA H200", f"GPU-{index}", int(139.8 * GIB), int(131.2 * GIB), 0.98,
        692.0, 700.0, None, 61.0, 1590, ("power cap",),
    )  # fmt: skip


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def store() -> Store:
    track = engine("llama")
    fill(track)
    made = Store(engines={"llama": track}, selected="llama", gpus=(gpu(),))
    track.load_state = _state_of_the_filled()
    made.load, made.load_target = snapshot(), "llama"
    made.events.append(Event(NOW - 4222, "info", "llama is ready after 98 s"))
    made.events.append(Event(NOW - 39, "change", "max_num_seqs 128 → 256, live, after 0.18 s"))
    return made


@pytest.fixture
def make_engine() -> Callable[..., EngineTrack]:
    return engine


@pytest.fixture
def make_load() -> Callable[..., LoadSnapshot]:
    return snapshot


@pytest.fixture
def make_gpu() -> Callable[..., GpuSample]:
    return gpu


@pytest.fixture
def control() -> FakeControl:
    return FakeControl([f"line {n}" for n in range(100)])


@pytest.fixture
def make_app(store: Store, control: FakeControl, now: float) -> Callable[..., LlmtopApp]:
    def make(**changes: object) -> LlmtopApp:
        given: dict[str, object] = {"clock": lambda: now, "zone": UTC, "interval": 3600.0}
        return LlmtopApp(store, control, **{**given, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def screen_text() -> Callable[[LlmtopApp], str]:
    """What is on the screen, as text."""

    def read(app: LlmtopApp) -> str:
        shown = [canvas for canvas in app.screen.query(Canvas) if canvas.size.height]
        return "\n".join("\n".join(plain(canvas.rows)) for canvas in shown)

    return read


@pytest.fixture
def settle() -> Callable[[Pilot[None]], Awaitable[None]]:
    """Waits until commands are answered and what they changed is painted."""

    async def wait(pilot: Pilot[None]) -> None:
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()

    return wait
