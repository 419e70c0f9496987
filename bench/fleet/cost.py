"""Measures the CPU and the memory of the fleet table at a refresh interval of five seconds.

    python -m bench.fleet.cost --instances 500 --gpus 8 --beats 12
    python -m bench.fleet.cost --beside /tmp/before        (git worktree add /tmp/before COMMIT)

The real table runs in its own pseudo terminal, with ``bench.fleet.synthetic`` as its Prometheus.
Each interval (beat) is one JSON line: CPU seconds of the process, their share of a core, its
resident set. The last line is a summary. With --beside, the table of another checkout runs at the
same time with the same server. Each line then has the ratio of the two CPU times, which depends
less on other processes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parents[2]
SETTLE_S = 12.0  # for the first table and the work that is done once
BOUNDS = {"cpu_share": 0.15, "rss_mib": 300.0}


class Shown:
    """The fleet table of one checkout in its own pseudo terminal."""

    def __init__(self, checkout: Path, port: int, interval_s: float) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(
                TERM="xterm-256color",
                LLMTOP_PROMETHEUS_URL=f"http://127.0.0.1:{port}",
                PYTHONPATH=os.pathsep.join(
                    filter(None, [str(checkout), os.environ.get("PYTHONPATH")])
                ),
            )
            words = ["-P", "-m", "llmtop", "fleet", "--interval", f"{interval_s:g}"]
            os.execv(sys.executable, [sys.executable, *words])
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        self._process = psutil.Process(self.pid)

    def cpu_s(self) -> float:
        """The CPU seconds so far."""
        found = self._process.cpu_times()
        return float(found.user + found.system)

    def rss_mib(self) -> float:
        """The resident set in MiB."""
        return float(self._process.memory_info().rss) / 2**20

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


def measure(given: argparse.Namespace) -> None:
    """Print one line for each interval, then the summary."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.fleet.synthetic", "--instances", str(given.instances),
         "--gpus", str(given.gpus)],
        stdout=subprocess.PIPE, text=True, cwd=HERE,
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline())
    checkouts = [HERE, *([given.beside.resolve()] if given.beside else [])]
    shown = [Shown(one, port, given.interval) for one in checkouts]
    beats: list[dict[str, Any]] = []
    try:
        _drain(shown, SETTLE_S)
        for number in range(1, given.beats + 1):
            before, since = [one.cpu_s() for one in shown], time.monotonic()
            _drain(shown, given.interval)
            seconds = time.monotonic() - since
            used = [one.cpu_s() - cpu for one, cpu in zip(shown, before, strict=True)]
            beat = {
                "beat": number,
                "cpu_s": round(used[0], 3),
                "cpu_share": round(used[0] / seconds, 4),
                "rss_mib": round(shown[0].rss_mib(), 1),
                "load": round(os.getloadavg()[0], 1),
            }
            if given.beside:
                beat |= {"beside_cpu_s": round(used[1], 3), "ratio": round(used[0] / used[1], 3)}
            beats.append(beat)
            print(json.dumps(beat), flush=True)
    finally:
        # The server ends before its clients. Otherwise it would report closed connections.
        server.terminate()
        server.wait()
        for one in shown:
            one.close()
    print(json.dumps(summary(given, beats)))


def summary(given: argparse.Namespace, beats: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of all intervals: median, lowest and highest."""

    def spread(name: str) -> list[float]:
        values = [one[name] for one in beats]
        return [round(statistics.median(values), 4), min(values), max(values)]

    found = {
        "instances": given.instances,
        "gpus": given.instances * given.gpus,
        "beats": len(beats),
        "interval_s": given.interval,
        "cpu_s": spread("cpu_s"),
        "cpu_share": spread("cpu_share"),
        "mean_cpu_share": round(statistics.fmean(one["cpu_share"] for one in beats), 4),
        "rss_mib": max(one["rss_mib"] for one in beats),
        "bounds": BOUNDS,
    }
    if given.beside:
        found |= {"beside_cpu_s": spread("beside_cpu_s"), "ratio": spread("ratio")}
    return found


def _drain(shown: list[Shown], seconds: float) -> None:
    """Read and discard what the screens write."""
    end = time.monotonic() + seconds
    terminals = [one.terminal for one in shown]
    while (left := end - time.monotonic()) > 0:
        for terminal in select.select(terminals, [], [], left)[0]:
            os.read(terminal, 1 << 16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--beats", type=int, default=12)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--beside", type=Path, help="another checkout to run at the same time")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
