"""The store of ``llmtop demo`` after a minute and a half, for its picture in the documents.

The simulated engine's scheduler runs under the demo's load in virtual time. The same seed gives the
same numbers on every machine.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.diagnosis.load_state import LoadStates
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.logs.memory_report import GIB, MemoryReport
from llmtop.engines.simulated.adapter import ADAPTER
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE
from llmtop.engines.tuning.resolution import assemble
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.operations.demonstration import ENGINE, PROMPTS, SHAPE
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace
from tests.closed_loop import Stream
from tests.virtual_demo import Demo

SECONDS, WINDOW, RATE_S, CHANGED = 95, 10, 3.0, 66
BEFORE, AFTER = 96, 48


def summary(values: list[float]) -> LatencySummary:
    """Nearest ranks, with the thresholds of the screen: p95 from 20 values on, p99 from 100."""
    found, n = sorted(values), len(values)

    def rank(share: float, least: int) -> float | None:
        return found[min(n - 1, int(share * n))] if n >= least else None

    return LatencySummary(rank(0.5, 1), rank(0.95, 20), rank(0.99, 100), n, float(WINDOW))


def tokens_per_s(streams: list[Stream], begin: float, end: float) -> float:
    """Output tokens between two moments; begin lies before end."""
    count = sum(bisect_left(s.moments, end) - bisect_left(s.moments, begin) for s in streams)
    return count / (end - begin)


def track_of(demo: Demo, now: float) -> EngineTrack:
    """The engine as ``llmtop demo`` starts it, without numbers."""
    spec = LaunchSpec("sim", "demo", "llama-3.1-8b", "127.0.0.1", 8000, args=ENGINE)
    began = now - SECONDS - 2
    record = EngineRecord(
        spec, ("simulator", *ENGINE), (), 4242, 1, "boot", "http://127.0.0.1:8000", "/log", None,
        began, startup_s=2.0,
    )  # fmt: skip
    track = EngineTrack("demo", "sim", ADAPTER.title, record.url, True, True)
    track.model, track.version = "llama-3.1-8b", "0.1.0"
    track.status = EngineStatus(record, State.READY, now - SECONDS)
    kv = demo.scheduler.pool.total * BLOCK_SIZE * 131_072.0  # bytes a token of this model
    track.memory_report = MemoryReport(
        weights=15.0 * GIB, kv=kv, graphs=GIB, total=139.8 * GIB, simulated=True
    )
    return track


class Painter:
    """Writes the demo into a store, second by second, as the sources of the screen do."""

    def __init__(self, now: float) -> None:
        self.demo, self.began = Demo(), now - SECONDS
        self.store = Store(selected="demo", load_target="demo", prompts=PROMPTS)
        self.track = self.store.engines["demo"] = track_of(self.demo, now)
        self.states = LoadStates()
        self.time = self.began
        self.effects = EffectSource(self.store, lambda: self.time)
        self.store.events.append(Event(self.began - 1, "info", "demo is ready after 2 s"))
        self.store.events.append(Event(self.began, "info", f"load: {SHAPE}"))

    def paint(self) -> Store:
        """The whole of it."""
        for second in range(SECONDS):
            if second == CHANGED:
                self.change()
            self.demo.run(second + 1)
            self.time = self.began + second + 1
            self.note(second + 1)
            asyncio.run(self.effects.sample())
        return self.store

    def change(self) -> None:
        """Lower the batch limit, as an operator would."""
        self.demo.change(max_num_seqs=AFTER)
        label = f"seqs {BEFORE}->{AFTER}"
        self.track.marks.append(Mark(self.time, label, effect=True))
        self.store.events.append(Event(self.time, "change", f"max_num_seqs {BEFORE} -> {AFTER}"))

    def note(self, second: int) -> None:
        """What the sources would have written at the end of this second."""
        demo, track, time = self.demo, self.track, self.time
        moment, begin, now = demo.moments[-1], max(0.0, second - WINDOW), demo.loop.now
        waiting, pool = moment.waiting or 0.0, demo.scheduler.pool
        seen = [s for s in demo.loop.streams if not s.moments or s.moments[-1] >= begin]
        tokens = tokens_per_s(seen, max(0.0, second - RATE_S), second)
        load = self.store.load = self.load(seen, second)
        values: dict[str, float | None] = {
            S.RUNNING: moment.running, S.WAITING: waiting, S.CAP: moment.cap,
            S.KV_USAGE: moment.kv_usage, S.OUTPUT_TOKENS: tokens, S.ASKED: load.asked,
            S.ACHIEVED: load.in_flight - load.waiting_first, S.OLDEST_WAIT: load.oldest_wait_s,
            S.CLIENT_TTFT_P50: load.ttft.p50, S.CLIENT_TTFT_P95: load.ttft.p95,
            S.CLIENT_TTFT_P99: load.ttft.p99, S.CLIENT_ITL_P95: load.itl.p95,
            S.REQUESTS: load.requests_per_s,
        }  # fmt: skip
        for name, value in values.items():
            track.record(name, time, value)
        oldest = max((now - s.sent for s in seen if not s.moments), default=0.0)
        track.load_state = self.states.note(
            replace(moment, time=time, tokens_per_s=tokens, ttft=load.ttft.p95, oldest_wait=oldest)
        )
        totals = demo.scheduler.totals
        track.sample = EngineSample(
            time, RATE_S, track.model, int(moment.running or 0), int(waiting), moment.kv_usage,
            pool.used * BLOCK_SIZE, pool.total * BLOCK_SIZE, tokens, None, load.requests_per_s,
            spec_acceptance=totals.accepted_tokens / max(1, totals.draft_tokens),
            spec_accepted_length=1 + totals.accepted_tokens / max(1, totals.drafts),
        )  # fmt: skip
        limits = demo.scheduler.limits
        live: dict[str, OptionValue] = {
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "num_speculative_tokens": limits.num_speculative_tokens,
        }
        launch = ADAPTER.launch_options(ENGINE)
        track.options = tuple(
            replace(
                one,
                value=live.get(one.name, one.value),
                launch=launch.get(one.name, live.get(one.name, one.launch)),
                applies=one.spec.applies,
            )
            for one in assemble(ADAPTER.options, launch, None)
        )

    def load(self, seen: list[Stream], second: int) -> LoadSnapshot:
        """What the load measured in the last ten seconds."""
        demo, begin = self.demo, max(0.0, second - WINDOW)
        asked, now = demo.shape.level(second), demo.loop.now
        flying = set(map(id, demo.loop._open.values()))
        ended = [s for s in seen if id(s) not in flying]
        firsts = [s for s in seen if s.moments and s.moments[0] >= begin]
        ttft = summary([s.moments[0] - s.sent for s in firsts])
        itl = summary(
            [
                b - a
                for s in seen
                for a, b in itertools.pairwise(s.moments[bisect_left(s.moments, begin) :])
                if b > a
            ]
        )
        tpot = summary([(s.moments[-1] - s.moments[0]) / (len(s.moments) - 1) for s in ended])
        waits = [now - s.sent for s in seen if not s.moments]
        lag = LatencySummary(5e-6, 6e-6, 7e-6, itl.n, float(WINDOW))
        return LoadSnapshot(
            time=self.time, loop="closed", shape=SHAPE, running=True, held=False,
            asked=float(asked), in_flight=len(flying), waiting_first=len(waits),
            sent=len(demo.loop.streams), ok=len(demo.loop.streams) - len(flying), failed=0, cut=0,
            window_s=float(WINDOW), requests_per_s=len(ended) / min(second, WINDOW),
            output_tokens_per_s=tokens_per_s(seen, begin, second),
            oldest_wait_s=max(waits, default=0.0), ttft=ttft, tpot=tpot, itl=itl,
            e2e=summary([s.moments[-1] - s.sent for s in ended]),
            health=ClientHealth("valid", "kernel", lag=lag),
        )  # fmt: skip


def demo_store(now: float) -> Store:
    """The store at ``now``: the batch limit was lowered half a minute ago."""
    return Painter(now).paint()
