"""Measures the CPU and the memory of the recorder with one simulated engine.

    python -m bench.history.recorder_cost [CHECKOUT ...] [--rounds 3] [--seconds 60]

The engine is idle, then has 20 streams. Several checkouts are measured in turn, so that one run
compares them: `git worktree add /tmp/before COMMIT`. CPU time is that of all threads, as a share of
one core. Memory is the resident set and its private part. The rest is pages of Python and its
libraries that other Python processes share. Printed are the median, the lowest and the highest of
the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.llmtop_process import free_port

SETTLE_S = 25.0  # for the start of the recorder and its garbage collection after the imports
BEGIN_S = 3.0  # for the start of a load


class Cost(NamedTuple):
    """cpu: share of a core. resident, own: resident and private memory, MiB. wakes: voluntary
    context switches of all threads per second."""

    cpu: float
    resident: float
    own: float
    wakes: float


def cpu_s(pid: int) -> float:
    """The CPU seconds of all threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9


def field(path: Path, name: str) -> float:
    """The number of a field in a file of /proc that has one field on each line; 0.0 if missing."""
    lines = path.read_text().splitlines()
    return next((float(one.split()[1]) for one in lines if one.startswith(f"{name}:")), 0.0)


def wakes(pid: int) -> float:
    """The voluntary context switches of all threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(field(one, "voluntary_ctxt_switches") for one in tasks)


def recorder_of(home: str) -> int:
    """The pid of the recorder of this state directory. Exits when there is none."""
    mark = f"XDG_STATE_HOME={home}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_one = b"llmtop.recorder" in (path / "cmdline").read_bytes()
            if is_one and mark in (path / "environ").read_bytes().split(b"\0"):
                return int(path.name)
        except OSError:
            continue
    raise SystemExit("the recorder does not run")


def measure(pid: int, seconds: float) -> Cost:
    """The cost over so many seconds."""
    cpu, woken, began = cpu_s(pid), wakes(pid), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    memory = Path(f"/proc/{pid}/smaps_rollup")
    own = field(memory, "Private_Clean") + field(memory, "Private_Dirty")
    return Cost(
        (cpu_s(pid) - cpu) / took,
        field(memory, "Rss") / 1024,
        own / 1024,
        (wakes(pid) - woken) / took,
    )


def costs(checkout: Path, seconds: float) -> tuple[Cost, Cost]:
    """The cost with an idle engine, and with 20 streams."""
    llmtop = [sys.executable, "-P", "-m", "llmtop"]
    with tempfile.TemporaryDirectory() as home:
        environ = {
            **os.environ,
            "XDG_STATE_HOME": home,
            "LLMTOP_HISTORY": "on",
            "PYTHONPATH": str(checkout.absolute()),
        }

        def run(*args: str) -> None:
            subprocess.run(
                [*llmtop, *args], env=environ, check=True, cwd=home,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

        port = str(free_port())
        run("run", "sim", "--name", "one", "--port", port, "--detach", "--", "--startup-s", "1")
        try:
            time.sleep(SETTLE_S)
            pid = recorder_of(home)
            idle = measure(pid, seconds)
            shape = f"hold 20 for {seconds + 2 * BEGIN_S:g}s"
            with subprocess.Popen(
                [*llmtop, "load", "one", "--shape", shape, "--no-calibrate"],
                env=environ, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ):  # fmt: skip
                time.sleep(BEGIN_S)
                busy = measure(pid, seconds)
        finally:
            run("stop", "one", "--grace", "2")
        time.sleep(15)  # the recorder ends by itself; then the folder can be removed
    return idle, busy


def cell(values: list[float], form: str) -> str:
    """``median (lowest .. highest)``."""
    middle, *ends = (
        format(one, form) for one in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({' .. '.join(ends)})"


def main() -> None:
    """Measure and print one line for each load and checkout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    found: dict[tuple[str, Path], list[Cost]] = defaultdict(list)
    for turn in range(given.rounds):
        for checkout in given.checkouts[:: -1 if turn % 2 else 1]:
            idle, busy = costs(checkout, given.seconds)
            found["idle", checkout].append(idle)
            found["20 streams", checkout].append(busy)
    print(f"n={given.rounds}, {given.seconds:g} s each: median (lowest .. highest)")
    for (load, checkout), rounds in sorted(found.items()):
        print(
            f"{load:<11} {cell([one.cpu for one in rounds], '.2%'):<26} "
            f"{cell([one.resident for one in rounds], '.1f'):<22} MiB resident  "
            f"{cell([one.own for one in rounds], '.1f'):<22} MiB own  "
            f"{cell([one.wakes for one in rounds], '.0f')} wakes/s  {checkout}"
        )


if __name__ == "__main__":
    main()
