"""What the table of a fleet costs: CPU of one core and memory, at a beat of five seconds.

    python -m bench.fleet.cost --instances 500 --gpus 8 --beats 12

The real table runs in a terminal of its own (a pty) against ``bench.fleet.synthetic``. CPU is that
of the process over the beats, after the first one; memory is its resident set.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import psutil

SETTLE_S = 15.0
BOUNDS = {"cpu_share": 0.15, "rss_mib": 300.0}


def measure(instances: int, gpus: int, beats: int, interval_s: float) -> dict[str, object]:
    """One run."""
    made = subprocess.Popen(
        [sys.executable, "-m", "bench.fleet.synthetic", "--instances", str(instances),
         "--gpus", str(gpus)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert made.stdout is not None
    port = int(made.stdout.readline())
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LLMTOP_PROMETHEUS_URL=f"http://127.0.0.1:{port}")
        os.execv(
            sys.executable,
            [sys.executable, "-m", "llmtop", "fleet", "--interval", f"{interval_s:g}"],
        )
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    process = psutil.Process(pid)
    try:
        _drain(terminal, SETTLE_S)
        before, began, load = process.cpu_times(), time.monotonic(), os.getloadavg()[0]
        shares, sizes = [], []
        for _ in range(beats):
            last, since = process.cpu_times(), time.monotonic()
            _drain(terminal, interval_s)
            now = process.cpu_times()
            used = now.user + now.system - last.user - last.system
            shares.append(used / (time.monotonic() - since))
            sizes.append(process.memory_info().rss / 2**20)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return {
            "instances": instances,
            "gpus": instances * gpus,
            "beats": beats,
            "interval_s": interval_s,
            "cpu_share": round(used / (time.monotonic() - began), 4),
            "cpu_share_of_each_beat": [round(share, 3) for share in sorted(shares)],
            "rss_mib": round(max(sizes), 1),
            "load_of_the_machine": load,
            "bounds": BOUNDS,
        }
    finally:
        process.terminate()
        made.terminate()
        os.close(terminal)
        os.waitpid(pid, 0)
        made.wait()


def _drain(terminal: int, seconds: float) -> None:
    """Read what the screen paints, as a terminal does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 1 << 16)


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--beats", type=int, default=12)
    parser.add_argument("--interval", type=float, default=5.0)
    given = parser.parse_args()
    found = measure(given.instances, given.gpus, given.beats, given.interval)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
