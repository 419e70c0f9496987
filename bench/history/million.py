"""Measures how fast a history and a recording of a million samples open and seek.

    python -m bench.history.million [SAMPLES]

It prints the CPU seconds of this process, which do not depend on other processes, and the wall
clock. The bounds are on the CPU seconds: a recording opens within 1 s and seeks within 0.2 s. A
second, shorter recording has 70 steps a second. Its seeks include the painting of a 200x60 screen.
The exit code is 1 when a bound is exceeded.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llmtop.analysis.series import SeriesName
from llmtop.engines.core.samples import EngineSample
from llmtop.history.facts import (
    EngineFact,
    Fact,
    Head,
    SampleFact,
    SeriesFact,
    SeriesSummary,
    StepsFact,
    SummaryFact,
)
from llmtop.history.history_reader import HistoryReader
from llmtop.history.history_writer import HistoryWriter, Identity
from llmtop.history.recording_reader import Recording
from llmtop.history.recording_writer import RecordingWriter
from llmtop.tui.commands.replay_control import ReplayControl
from llmtop.tui.history.player import Player
from llmtop.tui.replay.app import ReplayApp

BEGAN = 1_800_000_000.0
CHANCE = random.Random(1)
STEPS = 70
OPEN_S, JUMP_S = 1.0, 0.2
PLACES = (0.1, 0.35, 0.6, 0.9, 1.0)  # targets of seeks, as shares of the recording
MISSED: list[str] = []
POOL: list[dict[str, float | None]] = [
    {name.value: round(CHANCE.random() * 100, 4) for name in SeriesName} for _ in range(500)
]


def values() -> dict[str, float | None]:
    return CHANCE.choice(POOL)


def steps_at(time: float) -> StepsFact:
    """One second with 70 steps."""
    columns: dict[str, tuple[float | None, ...]] = {
        "end": tuple(-1 + number / STEPS for number in range(STEPS)),
        "duration_s": tuple(round(CHANCE.uniform(0.01, 0.02), 6) for _ in range(STEPS)),
        "requests": tuple(float(CHANCE.randrange(100, 128)) for _ in range(STEPS)),
        "decode_tokens": tuple(float(CHANCE.randrange(100, 128)) for _ in range(STEPS)),
    }
    same = ("prefill_tokens", "running", "waiting", "output_tokens", "kv_free_blocks", "preempted")
    columns |= {name: (7.0,) * STEPS for name in same}
    columns |= {name: (0.001,) * STEPS for name in ("schedule_s", "update_s", "launch_s")}
    return StepsFact(time, "llama", columns)


def record(path: Path, samples: int, *, steps: bool = False) -> None:
    def keyframe(time: float) -> list[Fact]:
        summaries = {name.value: SeriesSummary(0.0, 1.0, 2.0, 60) for name in SeriesName}
        return [EngineFact(time, "llama", "vllm"), SummaryFact(time, "llama", summaries)]

    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN), keyframe)
    for number in range(samples):
        at = BEGAN + number
        sample = EngineSample(at, 10.0, running=number % 200)
        facts: list[Fact] = [SampleFact(at, "llama", sample), SeriesFact(at, "llama", values())]
        writer.write(at, [*facts, steps_at(at)] if steps else facts)
    writer.close(at)


def timed(name: str, do: Callable[[], object], at_most_s: float = math.inf) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    do()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    missed = "" if cpu <= at_most_s else f"   above {at_most_s * 1e3:.0f} ms"
    MISSED.extend([name] if missed else [])
    print(f"{name:<44} {cpu * 1e3:8.0f} ms CPU {wall * 1e3:8.0f} ms wall{missed}")


async def paint(path: Path, seconds: int) -> None:
    """Time seeks that include the file, the store and the painting of the screen."""
    player = Player(Recording(path), "x", steady=lambda: 0.0)
    control = ReplayControl(player.playback.select, lambda name: ())
    app = ReplayApp(player, player.store, control, clock=player.now, interval=3600.0)
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.pause()
        for share in PLACES:

            def jump(at: float = BEGAN + share * seconds) -> None:
                player.seek(at)
                app.dashboard.redraw()

            timed(f"with 70 steps a second: jump to {share:.0%}, paint", jump, JUMP_S)
    player.close()


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.llmtop"
        timed(f"recording: write {samples:,} samples", lambda: record(path, samples))
        print(f"  {path.stat().st_size / 1e6:.0f} MB")
        timed("recording: open", lambda: Recording(path).close(), OPEN_S)
        players: list[Player] = []

        def replay() -> None:
            players.append(Player(Recording(path), "x"))

        timed("recording: open for a replay", replay, OPEN_S)
        for share in PLACES:

            def jump(at: float = BEGAN + share * samples) -> None:
                players[0].seek(at)

            timed(f"recording: jump to {share:.0%}", jump, JUMP_S)
        players[0].close()
        stepped, seconds = Path(folder) / "steps.llmtop", max(600, samples // 50)
        record(stepped, seconds, steps=True)
        print(f"  {stepped.stat().st_size / seconds * 3600 / 1e6:.1f} MB an hour with steps")
        asyncio.run(paint(stepped, seconds))
        place, who = Path(folder) / "history", Identity("llama", "vllm")
        writer = HistoryWriter(place)
        begun = time.process_time()
        for number in range(samples // 10):
            writer.add(who, BEGAN + number, values())
            if number % 10 == 9:
                writer.commit(BEGAN + number)
        spent = (time.process_time() - begun) / (samples // 10)
        print(f"history: a sample costs {spent * 1e6:.0f} us CPU, {samples // 10:,} samples")
        writer.close()

        def read() -> None:
            with HistoryReader(place) as reader:
                reader.past("llama", "vllm", BEGAN + samples // 10, 1200)

        timed("history: charts of a day for a new screen", read)
    if MISSED:
        sys.exit(1)


if __name__ == "__main__":
    main()
