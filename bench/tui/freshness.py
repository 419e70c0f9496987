"""Measures the age of the newest step on the screen, with a simulated engine with many streams.

    python -m bench.tui.freshness [--streams 1024] [--seconds 30]

The age is the time of a paint minus the end of the newest step in it. The steps screen is opened at
several phases of the refresh interval, because the age must not depend on the phase. The same is
measured for `llmtop steps`, and the time of a request to /metrics. Printed as JSON: n, median, p95
and highest value.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import ClassVar

from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.operations.wiring import Wiring
from llmtop.tui.app import LlmtopApp
from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.tui.screens.inside.steps import StepsScreen
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import Row

LLMTOP = (sys.executable, "-m", "llmtop")
NAME = "fresh"
OPENED = 5  # how often the screen is opened
WARM_UP_S = 8.0


class Timed(StepsScreen):
    """The steps screen, which records the age of the newest step at each paint.

    The paint at the opening is not recorded: it shows the steps that earlier screens had read.
    """

    ages: ClassVar[list[float]] = []
    _counts = False

    def steps_read(self) -> None:
        """As in ``StepsScreen``; the paints in it are recorded."""
        self._counts = True
        super().steps_read()
        self._counts = False

    def tick(self) -> None:
        """As in ``StepsScreen``; the paints in it are recorded."""
        self._counts = True
        super().tick()
        self._counts = False

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """The page as in ``StepsScreen``. Records the age of its newest step."""
        history = view.engine.steps if view.engine is not None else None
        if self._counts and history is not None and history.steps:
            self.ages.append(time.time() - history.steps[-1].end)
        return super().page(view, width, height)


async def on_screen(seconds: float) -> list[float]:
    """The ages on the screen, in seconds."""
    wiring = Wiring()
    stage = DashboardRuntime(wiring, [wiring.owned(NAME)])
    perform = stage.perform(None)
    app = LlmtopApp(stage.store, stage.controller, clock=stage.timeline.now, background=perform)
    stage.repaint, stage.steps_read = app.show_now, app.steps_read
    try:
        async with app.run_test(size=(120, 40)):
            await asyncio.sleep(WARM_UP_S)
            Timed.ages.clear()
            for turn in range(OPENED):
                app.push_screen(Timed(app.current_view, app.control, app.beat_s))
                # The duration is not a whole number of intervals, so the phase changes each time.
                await asyncio.sleep(seconds / OPENED + turn / OPENED)
                app.pop_screen()
    finally:
        stage.release()
    return list(Timed.ages)


async def by_command(path: str) -> list[float]:
    """The ages after an exchange like that of `llmtop steps`, in seconds."""
    ages = []
    inside = EngineInside(path)
    for _ in range(20):
        found = await inside.steps()
        ages.append(time.time() - found.steps[-1].end)
        await asyncio.sleep(0.33)
    inside.close()
    return ages


def page_s(url: str) -> float:
    """The seconds of a request to /metrics."""
    begun = time.monotonic()
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        answer.read()
    return time.monotonic() - begun


def summary(ages: list[float]) -> dict[str, float]:
    """n, median, p95 and highest value; seconds."""
    ordered = sorted(ages)
    return {
        "n": len(ages),
        "median_s": round(statistics.median(ages), 3),
        "p95_s": round(ordered[int(0.95 * (len(ages) - 1))], 3),
        "highest_s": round(ordered[-1], 3),
    }


def main() -> None:
    """Start an engine and a load, measure, and stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        flags = ("--max-num-seqs", str(given.streams))
        subprocess.run(
            [*LLMTOP, "run", "sim", "--name", NAME, "--detach", "--", *flags], check=True
        )
        load = None
        try:
            record = StateDirectory(Path(folder) / "llmtop").load(NAME)
            assert record is not None and record.live_socket is not None
            asked = ("-c", str(given.streams), "-d", "600", "--output-tokens", "400..600")
            load = subprocess.Popen(
                [*LLMTOP, "load", NAME, *asked, "--json"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(WARM_UP_S)
            screen = asyncio.run(on_screen(given.seconds))
            command = asyncio.run(by_command(record.live_socket))
            pages = [page_s(record.url) for _ in range(5)]
            last = asyncio.run(EngineInside(record.live_socket).steps(1)).steps[-1]
        finally:
            if load is not None:
                load.terminate()
                load.wait()
            subprocess.run([*LLMTOP, "stop", NAME, "--grace", "1"], check=False)
    print(json.dumps({
        "streams": given.streams, "running": last.running, "step_s": round(last.duration_s, 3),
        "screen": summary(screen), "exchange": summary(command), "metrics_page": summary(pages),
        "load_average": os.getloadavg(),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
