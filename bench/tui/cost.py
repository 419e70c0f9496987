"""What the screen costs a terminal and a machine, on made-up numbers once a second.

    python -m bench.tui.cost [--seconds 30]

Runs ``bench.tui.feed`` in a pseudo terminal of each size and prints bytes a second, CPU as a share
of one core, memory, and the time to the first full paint. The feed's own work is in the CPU column.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass

import psutil
import pyte

WARM_UP_S = 4.0  # after the first byte
LONGEST_START_S = 60.0
# Sequences that pyte would print as text: private modes, string sequences.
_UNKNOWN = re.compile(rb"\x1b\[\?[0-9;]*\$p|\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\][^\x07\x1b]*\x07")


@dataclass(frozen=True, slots=True)
class Cost:
    bytes_per_s: float
    worst_second: int
    cpu: float
    rss_mib: float
    first_paint_s: float | None


def measure(arguments: list[str], columns: int, lines: int, seconds: float) -> Cost:
    started = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = [sys.executable, "-m", "bench.tui.feed", *arguments]
        os.execvpe(command[0], command, environment)
    process = psutil.Process(pid)
    chunks: list[tuple[float, bytes]] = []
    cpu_before = 0.0
    opened: float | None = None
    try:
        while True:
            at = time.monotonic() - started
            if opened is None and chunks and at >= chunks[0][0] + WARM_UP_S:
                opened, cpu_before = at, sum(process.cpu_times()[:2])
            if at > (opened + seconds if opened is not None else LONGEST_START_S):
                break
            if select.select([terminal], [], [], 0.1)[0]:
                chunks.append((time.monotonic() - started, os.read(terminal, 1 << 16)))
        cpu = sum(process.cpu_times()[:2]) - cpu_before
        rss = process.memory_info().rss / 2**20
    finally:
        os.kill(pid, signal.SIGTERM)
        while select.select([terminal], [], [], 0.5)[0]:
            try:
                if not os.read(terminal, 1 << 16):
                    break
            except OSError:
                break
        os.waitpid(pid, 0)
        os.close(terminal)
    if opened is None:
        raise SystemExit("the screen wrote nothing within a minute")
    late = [(t, len(data)) for t, data in chunks if t >= opened]
    buckets: dict[int, int] = {}
    for t, size in late:
        buckets[int(t - opened)] = buckets.get(int(t - opened), 0) + size
    return Cost(
        sum(size for _, size in late) / seconds,
        max(buckets.values(), default=0),
        cpu / seconds,
        rss,
        first_paint([c for c in chunks if c[0] < opened], columns, lines),
    )


def first_paint(chunks: list[tuple[float, bytes]], columns: int, lines: int) -> float | None:
    """When the screen first held nine tenths of what it holds half a second later."""

    def filled(screen: pyte.Screen) -> int:
        return sum(c != " " for line in screen.display for c in line)

    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    seen: list[tuple[float, int]] = []
    for t, data in chunks:
        stream.feed(_UNKNOWN.sub(b"", data))
        seen.append((t, filled(screen)))
    begun = next((t for t, n in seen if n), None)
    if begun is None:
        return None
    full = max(n for t, n in seen if t <= begun + 0.5)
    return next(t for t, n in seen if n >= 0.9 * full)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    print("scene              size     bytes/s  worst s   CPU %  RSS MiB  first paint s")
    for name, arguments, size in (
        ("load", ["--at", "30"], (80, 24)),
        ("load", ["--at", "30"], (120, 40)),
        ("load", ["--at", "30"], (200, 60)),
        ("idle", ["--at", "30", "--idle"], (120, 40)),
        ("8 engines, 8 GPUs", ["--at", "30", "--engines", "8"], (120, 40)),
    ):
        cost = measure(arguments, *size, seconds)
        paint = "--" if cost.first_paint_s is None else f"{cost.first_paint_s:.2f}"
        print(
            f"{name:18} {size[0]}x{size[1]:<4} {cost.bytes_per_s:8,.0f} {cost.worst_second:8,} "
            f"{cost.cpu * 100:7.1f} {cost.rss_mib:8.1f}  {paint:>13}"
        )


if __name__ == "__main__":
    main()
