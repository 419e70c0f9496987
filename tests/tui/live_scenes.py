"""Live screens on made-up engines, second by second: what recordings are made of in tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.diagnosis.explanation import with_reasons
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.records import EngineStatus, State
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.core.steps import Steps
from llmtop.operations.insight.engine_insight import EngineInsight
from llmtop.operations.shared_load import SharedLoad
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace
from tests.conftest import engine, gpu, snapshot
from tests.inside_states import HELD
from tests.virtual_steps import VirtualEngine

BEGAN = 1_800_000_000.0
SECONDS = 130
MOMENTS = (0, 7, 20, 41, 60, 66, 80, 97, 110, 129)  # ten, of which some are just behind a change


def moment(number: int) -> float:
    """When the beat of a second is: at no whole one."""
    return BEGAN + number + 0.25


class Scene(ABC):
    """One store and its clock. ``second`` brings what a second of a live screen brings."""

    size = (120, 40)

    def __init__(self) -> None:
        self.store = Store()
        self.at = BEGAN
        self.make()

    def now(self) -> float:
        """The clock of the screen."""
        return self.at

    @abstractmethod
    def make(self) -> None:
        """What there is before the first second."""

    def second(self, number: int) -> None:
        """The next second."""
        self.at = moment(number)
        self.bring(number)

    @abstractmethod
    def bring(self, number: int) -> None:
        """What it brings."""

    def numbers(self, track: EngineTrack, running: int, waiting: int, cap: int = 128) -> None:
        """Samples and points of an engine that is loaded so."""
        kv = min(1.0, running / 150 + 0.013)
        tokens = 6871.3 * running / (running + 42)
        ttft = 0.0213 + 0.0007 * running + 0.011 * waiting
        for name, value in {
            S.RUNNING: running, S.WAITING: waiting, S.CAP: cap, S.KV_USAGE: kv,
            S.OUTPUT_TOKENS: tokens, S.PROMPT_TOKENS: tokens * 3.7, S.REQUESTS: tokens / 128,
            S.TTFT_P95_LOW: ttft * 1.4, S.TTFT_P95_HIGH: ttft * 1.9, S.TTFT_MEAN: ttft * 1.07,
            S.ITL_P95_LOW: 0.0061, S.ITL_P95_HIGH: 0.0063 + running * 1e-4, S.ITL_MEAN: 0.0052,
            S.CLIENT_TTFT_P50: ttft, S.CLIENT_TTFT_P95: ttft * 2, S.OLDEST_WAIT: ttft * 2.3,
        }.items():  # fmt: skip
            track.record(name, self.at, value)
        track.sample = EngineSample(
            self.at, 10.0, track.model, running, waiting, kv, int(9e5 * kv), 900_000, tokens,
            tokens * 3.7, tokens / 128, prefix_hit_rate=0.26, preemptions=max(0, waiting - 40),
        )  # fmt: skip

    def tell(self, level: str, text: str) -> None:
        """An event of now."""
        self.store.events.append(Event(self.at, level, text))


class Overload(Scene):
    """A growing load, a lowered limit, then less load: with steps, causes, cost and a GPU."""

    size = (200, 60)

    def make(self) -> None:
        self.track = engine("llama")
        self.store.engines["llama"] = self.track
        self.store.selected = "llama"
        self.virtual = VirtualEngine(seqs=16)
        self.told = 0
        self.insight = EngineInsight(None, lambda: self.at)
        self.insight.missing = {}

    def bring(self, number: int) -> None:
        track, store = self.track, self.store
        level = 4 + number // 2 if number < 66 else 30 if number < 97 else 6
        self.virtual.hold(level, 1.0)
        shift = self.at - 0.05 - self.virtual.now
        steps = [replace(one, end=one.end + shift) for one in self.virtual.steps[self.told :]]
        self.told = len(self.virtual.steps)
        self.insight.history.add(Steps(tuple(steps), int(number == 50), 1, time=self.at - 0.03))
        track.steps = self.insight.history
        running, waiting = min(16, level), max(0, level - 16)
        self.numbers(track, running, waiting, 16)
        state = Level.SATURATED if waiting else Level.HEADROOM
        found = LoadState(state, (f"batch limit 16, {waiting} waiting",), limits=("batch",))
        if number % 5 == 0:
            track.why = self.insight.explain(found, (), track.sample, track.options)
            track.why_since = BEGAN + number // 40 * 40
        assert track.why is not None
        track.load_state = with_reasons(found, track.why)
        store.gpus = (replace(gpu(), time=self.at, power_w=400.0 + 3.1 * number),)
        store.load = snapshot(time=self.at, in_flight=level, asked=float(level))
        store.load_target = "llama"
        if number in (40, 66):
            track.marks.append(Mark(self.at, f"max_num_seqs 16 → {16 + number}", effect=True))
            self.tell("change", f"max_num_seqs 16 → {16 + number}, live")
        if number == 97:
            track.marks.append(Mark(self.at, "load hold 6", load=True))
            self.tell("state", "llama HEADROOM: no request waits")


class StartAndEnd(Scene):
    """An engine that starts, serves, falls silent and fails, on a small terminal."""

    size = (80, 24)

    def make(self) -> None:
        self.track = engine("llama")
        assert self.track.status is not None
        record = replace(self.track.status.record, started_at=BEGAN - 3.0, ready_at=None)
        self.record = replace(record, startup_s=None, previous_startup_s=38.0)
        self.store.engines["llama"] = self.track
        self.store.selected = "llama"
        self.store.gpu_note = "no NVIDIA driver"

    def bring(self, number: int) -> None:
        track, record = self.track, self.record
        if number < 41:
            phase = "loading weights" if number < 20 else "capturing CUDA graphs"
            track.status = EngineStatus(record, State.STARTING, BEGAN - 3.0, phase)
            track.log_tail = "\n".join(f"shard {one} of 41: é" for one in range(number))
            return
        if number == 41:
            track.status = EngineStatus(replace(record, ready_at=self.at), State.READY, self.at)
            self.tell("info", "llama is ready after 44 s")
        asked = float(number - 40) if number < 97 else 0.0
        self.store.load = snapshot(time=self.at, asked=asked, in_flight=int(asked))
        if number < 97:
            self.numbers(track, number - 40, max(0, number - 80))
            track.load_state = LoadState(Level.HEADROOM, (f"{number - 40} of 128 running",))
        elif number < 110:
            track.stale_since = BEGAN + 96.5
            track.trouble = "the connection was refused"
            if number == 97:
                self.tell("error", "llama does not answer: the connection was refused")
        else:
            ended = replace(
                record, ended_at=BEGAN + 110, exit_code=1, cause="CUDA ran out of memory",
                advice="lower --gpu-memory-utilization", excerpt=("torch.OutOfMemoryError",),
            )  # fmt: skip
            track.status = EngineStatus(ended, State.FAILED, BEGAN + 110, "failed")
            track.sample, track.load_state, track.stale_since, track.trouble = None, None, None, ""


class Company(Scene):
    """Two engines: one is held, the other gets the load of another llmtop."""

    def make(self) -> None:
        for port, name in ((8000, "llama"), (8001, "qwen")):
            self.store.engines[name] = engine(name, port)
        self.store.engines["qwen"].owned = False
        self.store.engines["qwen"].status = None
        self.store.engines["qwen"].steps_missing = "only engines started by llmtop show steps"
        self.store.selected = "llama"

    def bring(self, number: int) -> None:
        llama, qwen = self.store.engines.values()
        self.store.load = snapshot(time=self.at, asked=30.0 + number, in_flight=20 + number)
        self.store.load_target = "llama"
        self.numbers(llama, 20 + number, number // 3)
        self.numbers(qwen, 128 - number, 4, 256)
        level = Level.NEAR_KNEE if number < 60 else Level.OVERLOADED
        llama.load_state = LoadState(level, (f"{number // 3} waiting",), limits=("kv",))
        qwen.load_state = LoadState(Level.HEADROOM, ("room",))
        llama.hold = HELD if 20 <= number < 110 else None
        if number >= 7:
            qwen.shared_load = SharedLoad(
                self.at, 4242, "ramp 1..64 over 60s", "closed", True, False, 60.0 + number, number,
                number * 13, 2, requests_per_s=13.1, ttft_p95=0.41,
            )  # fmt: skip
        if number in (41, 97):
            self.store.selected = "qwen" if number == 41 else "llama"
        if number == 80:
            llama.options = (replace(llama.options[0], value=64), *llama.options[1:])
            self.tell("change", "hold: max_num_seqs 256 → 64")


SCENES: dict[str, Callable[[], Scene]] = {
    "overload": Overload,
    "start and end": StartAndEnd,
    "company": Company,
}
