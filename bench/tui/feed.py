"""Shows the screen with synthetic numbers, to look at it and to measure its cost.

python -m bench.tui.feed                   the dashboard, updated once a second; the keys work
python -m bench.tui.feed --idle            an engine without requests
python -m bench.tui.feed --svg FILE --size 120x40 --at 95    a picture of the scene at second 95
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from llmtop.analysis.cost import CostMeter
from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.engines.core.options import Applies, Change, Option, OptionSpec, OptionValue, Outcome
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import (
    EngineSample,
    GpuProcess,
    GpuSample,
    Latency,
    Quantile,
    Quantiles,
)
from llmtop.engines.logs.memory_report import MemoryReport
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace
from tests.fake_control import FakeControl

GIB = 2**30
KV_TOKENS = 920_000


class Scene:
    """An engine under a growing load. Its throughput is like that of an 8B model on one H200."""

    def __init__(self, name: str = "llama", *, idle: bool = False, seed: int = 1) -> None:
        self.idle = idle
        self.random = random.Random(seed)
        self.cap = 256
        self.level: float | None = None
        self.second = 0
        self.ok = 0
        self.kv = 0.0
        self.waiting = 0.0
        self.joules = 1e6
        self.meter = CostMeter()
        self.track = EngineTrack(
            name, "vllm", "vLLM", "http://127.0.0.1:8000", owned=True, version="0.26.0"
        )
        self.track.model = "meta-llama/Llama-3.1-8B"
        self.store = Store(engines={name: self.track}, selected=name, load_target=name)

    def start(self, now: float) -> None:
        spec = LaunchSpec("vllm", self.track.name, "llama-3.1-8b", "127.0.0.1", 8000)
        record = EngineRecord(
            spec, ("vllm", "serve"), (), 4242, 1, "boot", self.track.url, "/dev/null", None,
            now - 4320, ready_at=now - 4222, startup_s=98.0,
        )  # fmt: skip
        self.track.status = EngineStatus(record, State.READY, now - 4320)
        self.track.options = self.options()
        parts = (15.0 * GIB, 112.3 * GIB, 0.98 * GIB, 1.1 * GIB, 0.22 * GIB)
        self.track.memory_report = MemoryReport(*parts, pids=(4242, 4243))
        self.store.events.append(Event(now, "info", "llama ready after 98 s"))

    def options(self) -> tuple[Option, ...]:
        rows: list[tuple[str, OptionValue, OptionValue, Applies]] = [
            ("max_num_seqs", self.cap, 1024, Applies.LIVE_UP_TO_LAUNCH),
            ("max_num_batched_tokens", 8192, 8192, Applies.LIVE_UP_TO_LAUNCH),
            ("num_speculative_tokens", 3, 3, Applies.LIVE),
            ("enable_prefix_caching", True, True, Applies.RESTART),
            ("gpu_memory_utilization", 0.92, 0.92, Applies.RESTART),
            ("max_model_len", 8192, 8192, Applies.RESTART),
        ]
        out = []
        for name, value, launch, applies in rows:
            kind = bool if isinstance(launch, bool) else int if isinstance(launch, int) else float
            words = f"What {name} is for, in a sentence."
            spec = OptionSpec(name, f"--{name}", words, applies, kind)
            top = float(launch) if isinstance(launch, int) else None
            out.append(Option(spec, value, launch, 1, top, applies))
        return tuple(out)

    def asked(self) -> float:
        if self.idle:
            return 0.0
        return self.level if self.level is not None else min(400.0, 1 + self.second * 3.2)

    def step(self, now: float) -> None:
        self.second += 1
        noise = self.random.gauss
        asked = self.asked()
        running = min(asked, float(self.cap))
        self.waiting = max(0.0, asked - running)
        tokens = 6900 * running / (running + 42) * (1 + noise(0, 0.012)) if running else 0.0
        ttft = 0.02 + 0.0006 * running + 0.012 * self.waiting * (1 + noise(0, 0.05))
        self.kv += (min(0.98, running * 0.0031) - self.kv) * 0.12
        rate = tokens / 128
        self.ok += int(rate)
        t = self.track
        p95 = ttft * 2.1 * (1 + noise(0, 0.06))
        n = int(rate * 10)
        values: dict[str, float | None] = {
            S.RUNNING: round(running), S.WAITING: round(self.waiting), S.CAP: self.cap,
            S.KV_USAGE: self.kv, S.OUTPUT_TOKENS: tokens, S.PROMPT_TOKENS: tokens * 4.1,
            S.TTFT_P95_LOW: p95 * 0.8 if n else None, S.TTFT_P95_HIGH: p95 * 1.2 if n else None,
            S.TTFT_MEAN: ttft if n else None, S.ITL_P95_LOW: 0.006,
            S.ITL_P95_HIGH: 0.006 + running * 1.3e-4, S.ITL_MEAN: 0.006,
            S.REQUESTS: rate, S.ASKED: asked, S.ACHIEVED: running,
        }  # fmt: skip
        if not self.idle:
            values |= {
                S.CLIENT_TTFT_P50: ttft, S.CLIENT_TTFT_P95: p95, S.CLIENT_TTFT_P99: p95 * 1.4,
                S.CLIENT_ITL_P95: (0.006 + running * 1.3e-4) * (1 + noise(0, 0.04)),
                S.OLDEST_WAIT: p95 * 1.2,
            }  # fmt: skip
        for name, value in values.items():
            t.record(name, now, value)
        p95_range = Quantile(p95 * 0.8, "-", p95 * 1.2)
        own = Quantiles(Quantile(ttft), p95_range, Quantile(p95), ttft, n, 10.0)
        itl = Quantiles(None, Quantile(0.006 + running * 1.3e-4), None, 0.006, n * 128, 10.0)
        accepted = 0.62 + noise(0, 0.03)
        if running:
            t.record(S.SPEC_ACCEPTANCE, now, accepted)
        t.sample = EngineSample(
            now, 1.0, t.model, round(running), round(self.waiting), self.kv,
            int(self.kv * KV_TOKENS), KV_TOKENS, tokens, tokens * 4.1, rate,
            prefix_hit_rate=0.26 if running else None, preemptions=0,
            spec_acceptance=accepted if running else None,
            spec_accepted_length=1 + 3 * accepted if running else None,
            spec_acceptance_by_position=(0.84, 0.61, 0.4) if running else (),
            latencies={Latency.TTFT: own, Latency.ITL: itl} if n else {},
        )  # fmt: skip
        watts = 76.0 if self.idle else min(692.0, 420 + 4 * running) + noise(0, 3)
        self.store.gpus = (
            GpuSample(
                now, 0, "NVIDIA H200", "GPU-1", int(139.8 * GIB), int(131.2 * GIB),
                0.0 if self.idle else 0.98, watts, 700.0, None,
                36.0 + watts / 28, 1980 if watts < 600 else 1587,
                ("power cap",) if watts > 670 else (), (GpuProcess(4243, int(130 * GIB)),),
            ),
        )  # fmt: skip
        self.joules += watts
        board = replace(self.store.gpus[0], energy_j=self.joules)
        self.store.gpus = (board,)
        t.cost = self.meter.add(now, tokens, self.kv, (board,), 112.3 * GIB)
        if not self.idle:
            self.store.load = self.snapshot(now, asked, ttft, p95, n, rate, tokens)

    def snapshot(
        self, now: float, asked: float, ttft: float, p95: float, n: int, rate: float, tokens: float
    ) -> LoadSnapshot:
        def summary(value: float) -> LatencySummary:
            return LatencySummary(value, value * 1.8, value * 2.6, n, 10.0)

        lag = LatencySummary(5e-6, 1.5e-5, 2e-5, n, 10.0)
        return LoadSnapshot(
            now, "closed", "ramp 1..400 over 120s", True, False, round(asked), round(asked),
            round(self.waiting), self.ok + round(asked), self.ok, 0, 0, 10.0, rate, tokens,
            p95 * 1.2, LatencySummary(ttft, p95, p95 * 1.4, n, 10.0), summary(0.018),
            summary(0.012), summary(3.1), ClientHealth("valid", "kernel", lag=lag),
        )  # fmt: skip

    def set_cap(self, cap: int, now: float) -> None:
        before, self.cap = self.cap, cap
        self.track.options = self.options()
        words = f"max_num_seqs {before} → {cap}"
        self.track.marks.append(Mark(now, words))
        self.store.events.append(Event(now, "change", f"{words}, live, seen after 0.18 s"))


class SceneControl(FakeControl):
    """Applies the keys to the scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__([f"INFO 11-22 line {n} of the log" for n in range(300)])
        self.scene = scene

    async def more(self) -> None:
        self.scene.level = max(1.0, self.scene.asked() * 1.25)

    async def less(self) -> None:
        self.scene.level = max(1.0, self.scene.asked() / 1.25)

    async def hold(self) -> None:
        self.scene.level = self.scene.asked()

    async def stop_load(self) -> None:
        self.scene.level = 0.0

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        if option == "max_num_seqs" and isinstance(value, int):
            self.scene.set_cap(value, time.time())
        return Change(option, None, value, Outcome.APPLIED, ack_ms=11.0)


def scene_at(
    seconds: int, now: float, *, idle: bool = False, name: str = "llama", seed: int = 1
) -> Scene:
    """A scene after ``seconds`` seconds, with a change of the batch limit at second 70."""
    scene = Scene(name, idle=idle, seed=seed)
    scene.cap = 128
    scene.start(now - seconds)
    for second in range(seconds):
        if second == 70 and not idle:
            scene.set_cap(256, now - seconds + second)
        scene.step(now - seconds + second + 1)
    return scene


async def picture(
    path: str, columns: int, lines: int, at: int, arguments: argparse.Namespace
) -> None:
    now = 1_800_000_000.0
    scene = scene_at(at, now, idle=arguments.idle)
    app = LlmtopApp(
        scene.store, SceneControl(scene), clock=lambda: now,
        theme=arguments.theme, ascii=arguments.ascii,
    )  # fmt: skip
    async with app.run_test(size=(columns, lines)) as pilot:
        await pilot.pause()
        for key in arguments.keys:
            await pilot.press(key)
        await pilot.pause(0.2)
        await pilot.pause()
        app.save_screenshot(path)


def live(arguments: argparse.Namespace) -> None:
    scene = scene_at(arguments.at, time.time(), idle=arguments.idle)

    others = [
        scene_at(arguments.at, time.time(), name=f"llama-{number}", seed=number)
        for number in range(2, arguments.engines + 1)
    ]
    for other in others:
        scene.store.engines[other.track.name] = other.track

    class Fed(LlmtopApp):
        def on_mount(self) -> None:
            self.set_interval(1.0, self.feed)

        def feed(self) -> None:
            now = time.time()
            for other in others:
                other.step(now)
            scene.step(now)
            if others:
                first = scene.store.gpus[0]
                count = range(len(others) + 1)
                scene.store.gpus = tuple(replace(first, index=number) for number in count)

    Fed(
        scene.store, SceneControl(scene), theme=arguments.theme, ascii=arguments.ascii,
        low_bandwidth=arguments.low_bandwidth,
    ).run()  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", action="store_true")
    parser.add_argument("--at", type=int, default=0, help="start at this second of the scene")
    parser.add_argument("--svg")
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--ascii", action="store_true")
    parser.add_argument("--low-bandwidth", action="store_true")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--keys", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.svg:
        columns, lines = (int(part) for part in arguments.size.split("x"))
        asyncio.run(picture(arguments.svg, columns, lines, arguments.at or 95, arguments))
    else:
        live(arguments)


if __name__ == "__main__":
    main()
