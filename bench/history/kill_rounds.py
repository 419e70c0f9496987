"""Kills the recorder, a real screen and the engine in any order, and reads what they left.

    python -m bench.history.kill_rounds [ROUNDS]

The screen runs in a pseudo terminal and records (ctrl+r). Each round takes one of the six orders in
turn, kills with SIGKILL and up to 0.5 s between two kills, then checks:

- the history passes SQLite's quick_check, and every second that was read before is still there,
- the recording opens, and holds every second from its first to its last,
- how old the last second of each was when its writer was killed.

The exit code is 1 where one of them is not so.
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
PATIENCE_S = 90.0
LEAST_S = 4.0  # of a round, so that there is something to lose
GAP_S = 3.5  # between two seconds of a file: a crowded machine delays a beat


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
        """As a person does."""
        os.write(self._terminal, keys)


def eventually(true: Callable[[], object], what: str) -> None:
    """Wait until it is so."""
    ends = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > ends:
            raise SystemExit(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.1)


def reap(pid: int) -> None:
    """Wait for its end; it may be nobody's child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    while Path(f"/proc/{pid}").exists() and state_of(pid) != "Z":
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """Its state letter, "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def recorded(path: Path) -> list[float]:
    """The seconds of a recording; none of one that was just begun."""
    if not path.stat().st_size:
        return []
    with Recording(path) as recording:
        return sorted({fact.time for fact in recording.facts(kinds={"series"})})


class Rounds:
    """One home, one engine name, one history; a recording for each round."""

    def __init__(self, home: Path) -> None:
        self.home, self.chance = home, random.Random(15)
        self.history = home / "llmtop" / "history"
        self.environ = {**os.environ, "XDG_STATE_HOME": str(home), "LLMTOP_HISTORY": "on"}
        self.ages: dict[str, list[float]] = {"history": [], "recording": []}
        self.faults: list[str] = []

    def run(self, *args: str) -> str:
        """A command; its output."""
        done = subprocess.run(
            [*LLMTOP, *args], env=self.environ, cwd=self.home, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout

    def start(self) -> int:
        """The engine's pid, once it is ready."""
        self.run("stop", "one", "--grace", "1")
        self.run(
            "run", "sim", "--name", "one", "--port", str(free_port()), "--detach", "--",
            "--startup-s", "0.1",
        )  # fmt: skip
        return int(json.loads(self.run("ps", "--json"))["engines"][0]["pid"])

    def seconds(self) -> list[float]:
        """All seconds of the history."""
        if not (self.history / "history.db").exists():
            return []
        with HistoryReader(self.history) as reader:
            past = reader.past("one", "sim", time.time() + 5, 7200)
        return list(past.fine["running"].times) if "running" in past.fine else []

    def round(self, number: int, order: tuple[str, ...]) -> None:
        """One round."""
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
        """Nothing that was read is lost, and the file is whole."""
        check = sqlite3.connect(self.history / "history.db")
        if check.execute("PRAGMA quick_check").fetchone() != ("ok",):
            self.faults.append(f"round {number}: the history is damaged")
        check.close()
        left = self.seconds()
        if missing := set(known) - set(left):
            self.faults.append(f"round {number}: {len(missing)} seconds of the history are lost")
        # The other one may have been killed first: then a new recorder was never started.
        last = max(one for one in left if one <= killed["recorder"] + 1)
        self.ages["history"].append(killed["recorder"] - last)
        own = [one for one in left if one > began + 1]
        self.check_gaps(f"round {number}: history", own)

    def check_recording(self, number: int, path: Path, killed: dict[str, float]) -> None:
        """It opens, and has no hole."""
        times = recorded(path)
        if not times:
            self.faults.append(f"round {number}: the recording is empty")
            return
        self.ages["recording"].append(min(killed.values()) - times[-1])
        self.check_gaps(f"round {number}: recording", times)

    def check_gaps(self, what: str, times: list[float]) -> None:
        """Each second follows the one before."""
        for one, other in itertools.pairwise(times):
            if other - one > GAP_S:
                self.faults.append(f"{what}: nothing for {other - one:.1f} s")


def main() -> int:
    """Print what was found."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    orders = list(itertools.permutations(("recorder", "screen", "engine")))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        found = Rounds(home)
        try:
            for number in range(rounds):
                found.round(number + 1, orders[number % len(orders)])
                print(".", end="", flush=True)
        finally:
            found.run("stop", "one", "--grace", "1")
            with contextlib.suppress(SystemExit):
                os.kill(recorder_of(folder), signal.SIGTERM)
        print(f"\n{rounds} rounds, {len(found.seconds())} seconds in the history")
    for name, ages in found.ages.items():
        print(
            f"{name}: its last second was {statistics.median(ages):.2f} s old at the kill "
            f"({min(ages):.2f} .. {max(ages):.2f}), n={len(ages)}"
        )
    for fault in found.faults:
        print(fault)
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
