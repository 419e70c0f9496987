"""Runs a program in a pseudo terminal and measures its output, CPU, memory and first full paint."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

import psutil
import pyte
from msgspec import Struct

WARM_UP_S = 5.0  # after the first byte
KEY_S = 0.1  # between two keys
LONGEST_START_S = 60.0
FULL = 0.9  # a paint is full with this share of the cells that the screen has later
# Escape sequences that pyte would print as text: private modes, string sequences.
_UNKNOWN = re.compile(rb"\x1b\[\?[0-9;]*\$p|\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\][^\x07\x1b]*\x07")


class Cost(Struct, frozen=True):
    """The cost of a program, without its child processes.

    bytes_per_s: written to the terminal. worst_second: most bytes in one second. cpu: share of one
    core. rss_mib: resident set. first_paint_s: seconds from the start of the program to its first
    full paint. start_cpu_s: CPU seconds until then, which depend less on other processes.
    """

    bytes_per_s: float
    worst_second: int
    cpu: float
    rss_mib: float
    first_paint_s: float | None
    start_cpu_s: float | None


def measure(
    command: Sequence[str],
    columns: int,
    lines: int,
    seconds: float,
    *,
    environ: Mapping[str, str] | None = None,
    keys: str = "",
    warm_up_s: float = WARM_UP_S,
) -> Cost:
    """Run a program for ``warm_up_s`` seconds after its first output, then measure it for
    ``seconds``. keys: typed during the warm-up. Exits when the program ends early."""
    started = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = {**os.environ, **(environ or {}), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execvpe(command[0], list(command), kept)
    process = psutil.Process(pid)
    chunks: list[tuple[float, bytes]] = []
    used: list[float] = []  # CPU seconds at each chunk
    cpu_before = 0.0
    opened: float | None = None
    typed = list(keys)
    try:
        while True:
            at = time.monotonic() - started
            since = at - chunks[0][0] if chunks else 0.0
            if typed and since > WARM_UP_S / 2 + KEY_S * (len(keys) - len(typed)):
                os.write(terminal, typed.pop(0).encode())
            if opened is None and chunks and since >= warm_up_s:
                opened, cpu_before = at, sum(process.cpu_times()[:2])
            if at > (opened + seconds if opened is not None else LONGEST_START_S):
                break
            if select.select([terminal], [], [], 0.05)[0]:
                chunks.append((time.monotonic() - started, os.read(terminal, 1 << 16)))
                used.append(sum(process.cpu_times()[:2]))
        cpu = sum(process.cpu_times()[:2]) - cpu_before
        rss = process.memory_info().rss / 2**20
    except OSError:  # the program has ended
        opened = None
    finally:
        _end(pid, terminal)
    if opened is None:
        output = b"".join(data for _, data in chunks)[-300:].decode(errors="replace")
        raise SystemExit(f"{' '.join(command)} ended early: {output}")
    late = [(t, len(data)) for t, data in chunks if t >= opened]
    buckets: dict[int, int] = {}
    for t, size in late:
        buckets[int(t - opened)] = buckets.get(int(t - opened), 0) + size
    painted = first_paint([c for c in chunks if c[0] < opened], columns, lines)
    at_paint = next((cpu for (t, _), cpu in zip(chunks, used, strict=True) if t == painted), None)
    return Cost(
        sum(size for _, size in late) / seconds,
        max(buckets.values(), default=0),
        cpu / seconds,
        rss,
        painted,
        at_paint,
    )


def _end(pid: int, terminal: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        while select.select([terminal], [], [], 1.0)[0]:
            if not os.read(terminal, 1 << 16):
                break
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)


def first_paint(chunks: Sequence[tuple[float, bytes]], columns: int, lines: int) -> float | None:
    """The time at which the screen first had ``FULL`` of the cells that it has at the end; None for
    an empty screen. chunks: time and data."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    seen: list[tuple[float, int]] = []
    for t, data in chunks:
        stream.feed(_UNKNOWN.sub(b"", data))
        seen.append((t, sum(c != " " for line in screen.display for c in line)))
    if not seen or not seen[-1][1]:
        return None
    return next(t for t, n in seen if n >= FULL * seen[-1][1])
