"""What the recorder costs beside a simulated engine: CPU as a share of a core, resident memory.

    python -m bench.history.recorder_cost [SECONDS]

Idle and under 20 streams. The CPU time is that of all of its threads (/proc/PID/task/*/schedstat).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LLMTOP = [sys.executable, "-m", "llmtop"]
SETTLE_S = 25.0  # the recorder's own start, and one collection of garbage


def cpu_s(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def recorder_of(home: str) -> int:
    mark = f"XDG_STATE_HOME={home}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_one = b"llmtop.recorder" in (path / "cmdline").read_bytes()
            if is_one and mark in (path / "environ").read_bytes().split(b"\0"):
                return int(path.name)
        except OSError:
            continue
    raise SystemExit("the recorder does not run")


def measure(pid: int, seconds: float, words: str) -> None:
    before, began = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_s(pid) - before) / (time.monotonic() - began)
    print(f"{words:<12} {share:.2%} of a core, {resident_mib(pid):.1f} MiB, {seconds:g} s")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "XDG_STATE_HOME": home, "LLMTOP_HISTORY": "on"}

        def run(*args: str) -> None:
            subprocess.run([*LLMTOP, *args], env=environ, check=True, stdout=subprocess.DEVNULL)

        run("run", "sim", "--name", "one", "--port", "18779", "--detach", "--", "--startup-s", "1")
        try:
            time.sleep(SETTLE_S)
            pid = recorder_of(home)
            measure(pid, seconds, "idle")
            shape = f"hold 20 for {seconds + 5:g}s"
            load = subprocess.Popen(
                [*LLMTOP, "load", "one", "--shape", shape, "--no-calibrate"],
                env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(3)
            measure(pid, seconds, "20 streams")
            load.wait()
        finally:
            run("stop", "one", "--grace", "2")
        time.sleep(15)  # it ends by itself; then the folder may go


if __name__ == "__main__":
    main()
