"""Measures the cost of the screen in bytes, CPU and memory, and compares it with its bounds.

    python -m bench.tui.cost [--seconds 30] [--only WORDS]

There are two kinds of scenes, both in pseudo terminals:

- ``llmtop attach`` with simulated engines that this program starts. The load workers and the
  engines are not counted.
- ``bench.tui.feed``: the same screen with synthetic numbers once a second. The CPU time includes
  that of the feed.

If btop is installed, it is measured in the same run. The exit code is 1 when a bound is exceeded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from bench.tui.terminal import Cost, measure

LLMTOP = [sys.executable, "-m", "llmtop"]
FEED = [sys.executable, "-m", "bench.tui.feed"]
NORMAL = (120, 40)
MORE = "+" * 20  # about 70 streams
ENGINES = 8


class Bounds(Struct, frozen=True):
    """Upper bounds: bytes per second, percent of a core, MiB, seconds to the first full paint."""

    bytes_per_s: float | None = None
    cpu: float | None = None
    rss_mib: float | None = None
    first_paint_s: float | None = None


LOAD = Bounds(2500, 1.5, 70)
IDLE = Bounds(300, 1.2, 60, 0.9)
SLOW = Bounds(1000)
MANY = Bounds(cpu=8.0)


class Scene(Struct, frozen=True):
    """One line of the table. keys: typed after the first paint."""

    name: str
    command: list[str]
    size: tuple[int, int] = NORMAL
    bounds: Bounds = Bounds()
    keys: str = ""
    warm_up_s: float = 5.0
    paints: bool = False  # whether the time of the first full paint is shown


def scenes(urls: list[str]) -> list[Scene]:
    """All scenes, those of the real program first."""
    attach = [*LLMTOP, "attach"]
    feed = [*FEED, "--at", "30"]
    found = [
        Scene("attach, idle", [*attach, urls[0]], bounds=IDLE, paints=True),
        Scene("attach, load", [*attach, urls[0]], NORMAL, LOAD, MORE, 15.0),
        Scene(
            "attach, load, low bandwidth",
            [*attach, urls[0], "--low-bandwidth"], NORMAL, SLOW, MORE, 15.0,
        ),
        Scene(f"attach, {len(urls)} engines", [*attach, *urls], bounds=MANY),
        Scene("feed, load", feed, (80, 24)),
        Scene("feed, load", feed, NORMAL, LOAD),
        Scene("feed, load", feed, (200, 60)),
        Scene("feed, idle", [*feed, "--idle"], NORMAL, Bounds(300, 1.2, 60)),
        Scene("feed, load, low bandwidth", [*feed, "--low-bandwidth"], NORMAL, SLOW),
        Scene("feed, 8 engines, 8 GPUs", [*feed, "--engines", "8"], NORMAL, MANY),
    ]  # fmt: skip
    if shutil.which("btop"):
        found.append(Scene("btop", ["btop"], paints=True))
    return found


@contextmanager
def engines(count: int) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """Start simulated engines in a new state directory. Yields their URLs and the environment."""
    with tempfile.TemporaryDirectory(prefix="llmtop-bench-") as folder:
        environ = {"XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}
        urls = []

        def llmtop(*args: str) -> None:
            subprocess.run(
                [*LLMTOP, *args],
                env={**os.environ, **environ},
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=os.getcwd(),
            )

        try:
            for number in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    port = int(probe.getsockname()[1])
                llmtop("run", "sim", "--detach", "--name", f"bench{number}", "--port", str(port))
                urls.append(f"http://127.0.0.1:{port}")
            yield urls, environ
        finally:
            for number in range(len(urls)):
                llmtop("stop", f"bench{number}")


def line(scene: Scene, cost: Cost) -> tuple[str, bool]:
    """A line of the table, and whether it keeps its bounds. ``!`` marks a value above its bound."""
    kept = True

    def cell(value: float, bound: float | None, form: str, cells: int) -> str:
        nonlocal kept
        over = bound is not None and value > bound
        kept = kept and not over
        return (format(value, form) + ("!" if over else " ")).rjust(cells)

    paint = cost.first_paint_s if scene.paints else None
    columns, lines = scene.size
    text = (
        f"{scene.name:28} {columns}x{lines:<4}"
        + cell(cost.bytes_per_s, scene.bounds.bytes_per_s, ",.0f", 10)
        + f"{cost.worst_second:9,}"
        + cell(cost.cpu * 100, scene.bounds.cpu, ".1f", 9)
        + cell(cost.rss_mib, scene.bounds.rss_mib, ".1f", 10)
        + ("--".rjust(10) if paint is None else cell(paint, scene.bounds.first_paint_s, ".2f", 11))
        + ("--".rjust(9) if paint is None else format(cost.start_cpu_s or 0.0, ".2f").rjust(9))
    )
    return text, kept


def main() -> int:
    """Measure and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="", help="only scenes whose name contains this")
    arguments = parser.parse_args()
    print(
        f"{'scene':28} {'size':8}{'bytes/s':>9}{'worst s':>10}{'CPU %':>8}{'RSS MiB':>11}"
        f"{'paint s':>9}{'CPU s':>10}"
    )
    kept = True
    with engines(ENGINES) as (urls, environ):
        for scene in scenes(urls):
            if arguments.only not in scene.name:
                continue
            cost = measure(
                scene.command, *scene.size, arguments.seconds,
                environ=environ, keys=scene.keys, warm_up_s=scene.warm_up_s,
            )  # fmt: skip
            text, good = line(scene, cost)
            kept = kept and good
            print(text, flush=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; ! is above its bound")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
