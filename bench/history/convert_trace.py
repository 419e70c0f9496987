"""Converts a trace of a run on a GPU to a recording. The trace has metrics pages, NVML readings and
requests.

    python -m bench.history.convert_trace FOLDER OUTPUT --title WORDS --cap 1024

FOLDER holds ``samples.jsonl.gz`` (kinds ``metrics`` and ``nvml``), ``marks.jsonl.gz``,
``server.log.jsonl.gz`` and ``requests0.jsonl.gz``. The numbers go through the same adapter, window
and diagnosis as those of a live engine. Prompts and answers are not in a trace.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmtop import __version__
from llmtop.analysis.marks import Mark
from llmtop.analysis.series import engine_series
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.host.safe_text import clean
from llmtop.engines.metrics.exposition import Parser
from llmtop.engines.metrics.window import Window
from llmtop.engines.vllm.adapter import ADAPTER
from llmtop.history.facts import Fact, Head, Host, LogFact
from llmtop.history.recording_writer import RecordingWriter
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.loadgen.statistics.quantiles import of_values
from llmtop.tui.history.store_facts import StoreFacts
from llmtop.tui.sources.load import CLIENT
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace

NAME = "h200"
WINDOW_S = 10.0
BEFORE_S = 3.0  # the recording begins so long before the load
SOURCE = (
    "a real vLLM {version} on one NVIDIA H200 (2026-11-22; Llama-3.1-8B with dummy weights), "
    "converted from its metrics page, NVML and the requests of a load client"
)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with gzip.open(path, "rt") as file:
            for line in file:
                yield json.loads(line)


def gpu(time: float, reading: dict[str, Any]) -> GpuSample:
    memory = reading["memory"]
    return GpuSample(
        time, 0, "NVIDIA H200", "GPU-0", memory["total"], memory["used"],
        reading["util"]["gpu"] / 100, reading["power_mw"] / 1000, 700.0,
        reading["energy_mj"] / 1000, reading["temp_c"], reading["clock_sm"],
    )  # fmt: skip


def latencies(values: list[float]) -> LatencySummary:
    return replace(of_values(values), window_s=WINDOW_S)


class Client:
    """The requests of the run, as a load snapshot at each moment."""

    def __init__(self, folder: Path) -> None:
        self.requests = sorted(lines(folder / "requests0.jsonl.gz"), key=lambda one: one["send"])
        plan = next(lines(folder / "plan0.json.gz"))
        self.steps: list[tuple[int, float]] = [(n, s) for n, s in plan["steps"]]
        self.began = self.requests[0]["send"] if self.requests else 0.0
        self.shape = ", ".join(f"hold {n} for {s:g}s" for n, s in self.steps)

    def level(self, time: float) -> int:
        at = self.began
        for streams, seconds in self.steps:
            if time < at + seconds:
                return streams if time >= self.began else 0
            at += seconds
        return 0

    def snapshot(self, time: float) -> LoadSnapshot | None:
        sent = [one for one in self.requests if one["send"] <= time]
        if not sent:
            return None
        since = time - WINDOW_S
        first = [one for one in sent if since < one["send"] + one["ttft"] <= time]
        ended = [one for one in sent if one["send"] + one["e2e"] <= time]
        recent = [one for one in ended if one["send"] + one["e2e"] > since]
        flying = [one for one in sent if one["send"] + one["e2e"] > time]
        waits = [time - one["send"] for one in flying if one["send"] + one["ttft"] > time]
        gaps = [gap / 1e4 for one in recent for gap in one["gaps_01ms"]]
        level, span = self.level(time), min(WINDOW_S, max(1.0, time - self.began))
        tpot = [(o["e2e"] - o["ttft"]) / (o["tokens"] - 1) for o in recent if o["tokens"] > 1]
        return LoadSnapshot(
            time, "closed", self.shape, level > 0, False, float(level), len(flying), len(waits),
            len(sent), len(ended), 0, 0, WINDOW_S, len(recent) / span,
            sum(one["tokens"] for one in recent) / span, max(waits, default=None),
            latencies([one["ttft"] for one in first]), latencies(tpot), latencies(gaps),
            latencies([one["e2e"] for one in recent]), ClientHealth("not judged", "user space"),
        )  # fmt: skip


def convert(folder: Path, output: Path, title: str, cap: int) -> None:
    marks = list(lines(folder / "marks.jsonl.gz"))
    start = next(one for one in marks if one["kind"] == "start")
    ready = next(one["t"] for one in marks if one["kind"] == "healthy")
    version = json.loads(next(o["body"] for o in marks if o.get("path") == "/version"))["version"]
    client = Client(folder)
    track = EngineTrack(NAME, "vllm", "vLLM", "http://127.0.0.1:8000", True, version=version)
    track.model = "llama-8b-dummy"
    spec = LaunchSpec("vllm", NAME, track.model, "127.0.0.1", 8000, args=tuple(start["cmd"][5:]))
    record = EngineRecord(
        spec, tuple(start["cmd"]), (), 501, 1, "", track.url, "engine.log", None, start["t"],
        ready_at=ready, startup_s=ready - start["t"], version=version,
    )  # fmt: skip
    track.status = EngineStatus(record, State.READY, ready)
    now = [client.began - BEFORE_S]
    store = Store({NAME: track}, selected=NAME)
    facts, states = StoreFacts(store), EngineStates(store, lambda: now[0])
    source = SOURCE.format(version=version)
    head = Head(now[0], 1, __version__, now[0], 1.0, title, source, Host(driver="580.159.04"))
    writer = RecordingWriter(output, head, facts.all)
    parser, window, samples = Parser(ADAPTER.prefixes, ADAPTER.renamed), Window(), 0
    log = list(lines(folder / "server.log.jsonl.gz"))
    logged, level = now[0], 0
    for one in lines(folder / "samples.jsonl.gz"):
        time = one["t"]
        if one["kind"] == "nvml":
            store.gpus = (gpu(time, one["payload"]),)
        if one["kind"] != "metrics":
            continue
        reading = ADAPTER.read(parser.parse(one["payload"]), time, time)
        sample = window.add(reading)
        if time < now[0]:
            continue
        now[0] = time
        track.sample = sample
        for name, value in engine_series(sample, cap):
            track.record(name, time, value)
        load = client.snapshot(time)
        if load is not None:
            store.load, store.load_target = load, NAME
            served = float(load.in_flight - load.waiting_first)
            values = (
                load.ttft.p50, load.ttft.p95, load.ttft.p99, load.itl.p95, load.oldest_wait_s,
                load.asked, served,
            )  # fmt: skip
            for name, value in zip(CLIENT, values, strict=True):
                track.record(name, time, value)
            if load.asked != level:
                level = int(load.asked)
                words = f"load {level}" if level else "load stopped"
                track.marks.append(Mark(time, words, load=True))
                store.events.append(Event(time, "info", f"load: {level} streams"))
        states.observe(track)
        more: list[Fact] = []
        new = [clean(o["payload"]) for o in log if logged < o["t"] <= time]
        if new:
            more.append(LogFact(time, NAME, tuple(new[-40:])))
        logged = time
        writer.write(time, [*facts.changes(time), *more])
        samples += 1
    writer.close(now[0])
    print(f"{output}: {samples} samples, {output.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--cap", type=int, default=1024, help="max_num_seqs of the run")
    args = parser.parse_args()
    convert(args.folder, args.output, args.title, args.cap)


if __name__ == "__main__":
    main()
