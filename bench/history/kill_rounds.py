"""Kills the recorder, a real screen and the engine in every order, and checks the files they wrote.

    python -m bench.history.kill_rounds [ROUNDS]

The screen runs in a pseudo terminal and records (ctrl+r). Each round uses the next of the six
orders. It kills with SIGKILL, with up to 0.5 s between two kills. Then it checks:

- The history passes SQLite's quick_check, and no second that was read before is missing.
- The recording opens, and has every second from its first to its last.

It measures how old the last second of each file was when its writer was killed. The exit code is 1
when a check fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import random
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.history.recorder_cost import recorder_of
from llmtop.history.history_reader import HistoryReader
from llmtop.history.recording_reader import Recording
from tests.llmtop_process import free_port

LLMTOP = [sys.executable, "-P", "-m", "llmtop"]
TIMEOUT_S = 90.0
LEAST_S = 4.0  # seconds of data in a round before the first kill
GAP_S = 3.5  # allowed between two seconds of a file: a busy machine delays a sample


class Screen:
    """llmtop in a pseudo terminal of 120x40."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
            os.chdir(folder)
            os.execvpe(LLMTOP[0], LLMTOP, {**environ, "TERM": "xterm-256color"})
        self.bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while found := os.read(self._terminal, 1 << 16):
                self.bytes += len(found)

    def type(self, keys: bytes) -> None:
        """Send keys to the terminal."""
        os.write(self._terminal, keys)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition is true. Exits after ``TIMEOUT_S``. what: for the message."""
    ends = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit(f"not within {TIMEOUT_S:g} s: {what}")
        time.sleep(0.1)


def reap(pid: int) -> None:
    """Wait for the end of a process, which need not be a child of this one."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    while Path(f"/proc/{pid}").exists() and state_of(pid) != "Z":
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """The state letter of a process; "" where it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def recorded(path: Path) -> list[float]:
    """The times in a recording, sorted; [] for an empty file."""
    if not path.stat().st_size:
        return []
    with Recording(path) as recording:
        return sorted({fact.time for fact in recording.facts(kinds={"series"})})


class Rounds:
    """All rounds use one state directory, one engine name and one history. Each round has its own
    recording."""

    def __init__(self, home: Path) -> None:
        self.home, self.chance = home, random.Random(15)
        self.history = home / "llmtop" / "history"
        self.environ = {**os.environ, "XDG_STATE_HOME": str(home), "LLMTOP_HISTORY": "on"}
        self.ages: dict[str, list[float]] = {"history": [], "recording": []}
        self.faults: list[str] = []

    def run(self, *args: str) -> str:
        """Run a command of llmtop. Returns its output."""
        done = subprocess.run(
            [*LLMTOP, *args], env=self.environ, cwd=self.home, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout

    def start(self) -> int:
        """Start the engine and wait until it is ready. Returns its pid."""
        self.run("stop", "one", "--grace", "1")
        self.run(
            "run", "sim", "--name", "one", "--port", str(free_port()), "--detach", "--",
            "--startup-s", "0.1",
        )  # fmt: skip
        return int(json.loads(self.run("ps", "--json"))["engines"][0]["pid"])

    def seconds(self) -> list[float]:
        """The times in the history."""
        if not (self.history / "history.db").exists():
            return []
        with HistoryReader(self.history) as reader:
            past = reader.past("one", "sim", time.time() + 5, 7200)
        return list(past.fine["running"].times) if "running" in past.fine else []

    def round(self, number: int, order: tuple[str, ...]) -> None:
        """Run one round. order: the names of the processes in the order of their kills."""
        engine = self.start()
        began = time.time()
        folder = self.home / f"round-{number}"
        folder.mkdir()
        screen = Screen(self.environ, folder)
        eventually(lambda: screen.bytes > 3000, "the screen paints")
        screen.type(b"\x12")  # ctrl+r

        def files() -> list[Path]:
            return list(folder.glob("*.llmtop"))

        eventually(files, "a recording begins")
        eventually(lambda: self.seconds() and self.seconds()[-1] > began + LEAST_S, "a history")
        eventually(lambda: len(recorded(files()[0])) > LEAST_S, "a recording of some seconds")
        recorder = recorder_of(str(self.home))
        pids = {"recorder": recorder, "screen": screen.pid, "engine": engine}
        time.sleep(self.chance.uniform(0.0, 1.0))
        known = self.seconds()
        killed: dict[str, float] = {}
        for name in order:
            os.kill(pids[name], signal.SIGKILL)
            killed[name] = time.time()
            time.sleep(self.chance.uniform(0.0, 0.5))
        for pid in pids.values():
            reap(pid)
        self.check_history(number, known, began, killed)
        self.check_recording(number, files()[0], killed)

    def check_history(
        self, number: int, known: list[float], began: float, killed: dict[str, float]
    ) -> None:
        """Check that the history is not damaged and no known second is missing."""
        check = sqlite3.connect(self.history / "history.db")
        if check.execute("PRAGMA quick_check").fetchone() != ("ok",):
            self.faults.append(f"round {number}: the history is damaged")
        check.close()
        left = self.seconds()
        if missing := set(known) - set(left):
            self.faults.append(f"round {number}: {len(missing)} seconds of the history are lost")
        # If the screen was killed first, nothing has started a new recorder.
        last = max(one for one in left if one <= killed["recorder"] + 1)
        self.ages["history"].append(killed["recorder"] - last)
        own = [one for one in left if one > began + 1]
        self.check_gaps(f"round {number}: history", own)

    def check_recording(self, number: int, path: Path, killed: dict[str, float]) -> None:
        """Check that the recording opens and has no gap."""
        times = recorded(path)
        if not times:
            self.faults.append(f"round {number}: the recording is empty")
            return
        self.ages["recording"].append(min(killed.values()) - times[-1])
        self.check_gaps(f"round {number}: recording", times)

    def check_gaps(self, what: str, times: list[float]) -> None:
        """Check the gaps between successive times."""
        for one, other in itertools.pairwise(times):
            if other - one > GAP_S:
                self.faults.append(f"{what}: no data for {other - one:.1f} s")


def main() -> int:
    """Run the rounds and print the results."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    orders = list(itertools.permutations(("recorder", "screen", "engine")))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench = Rounds(home)
        try:
            for number in range(rounds):
                bench.round(number + 1, orders[number % len(orders)])
                print(".", end="", flush=True)
        finally:
            bench.run("stop", "one", "--grace", "1")
            with contextlib.suppress(SystemExit):
                os.kill(recorder_of(folder), signal.SIGTERM)
        print(f"\n{rounds} rounds, {len(bench.seconds())} seconds in the history")
    for name, ages in bench.ages.items():
        print(
            f"{name}: its last second was {statistics.median(ages):.2f} s old at the kill "
            f"({min(ages):.2f} .. {max(ages):.2f}), n={len(ages)}"
        )
    for fault in bench.faults:
        print(fault)
    return int(bool(bench.faults))


if __name__ == "__main__":
    sys.exit(main())
