"""Shows the load of one llmtop on other screens of the same engine.

``load.json`` in the engine's folder, mode 0600: written once a second by the process that drives
the load, read by every other one. It only informs: no process acts on it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.analysis.series import SeriesName
from llmtop.engines.host.private_files import read_own
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.printable import clean

FILE = "load.json"
LIMIT = 64 * 1024  # bytes
FRESH_S = 5.0  # a process that has not written for longer sends no load
MOST = 20  # events, and marks


class Notice(Struct, frozen=True):
    """One event or mark of the load. time: unix seconds."""

    time: float
    text: str


class SharedLoad(Struct, frozen=True):
    """The load of another llmtop at ``time``, unix seconds. pid: whose it is."""

    time: float
    pid: int
    shape: str
    loop: str
    running: bool
    held: bool
    asked: float
    in_flight: int
    ok: int
    failed: int
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    ttft_p95: float | None = None
    refused: int = 0
    refused_per_s: float | None = None
    events: tuple[Notice, ...] = ()
    marks: tuple[Notice, ...] = ()
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    itl_p95: float | None = None
    oldest_wait_s: float | None = None
    served: int | None = None  # streams that get tokens

    @property
    def figures(self) -> Figures:
        """The client's series of the charts, each with its value now."""
        achieved = self.served if self.loop == "closed" else self.requests_per_s
        return (
            (SeriesName.CLIENT_TTFT_P50, self.ttft_p50),
            (SeriesName.CLIENT_TTFT_P95, self.ttft_p95),
            (SeriesName.CLIENT_TTFT_P99, self.ttft_p99),
            (SeriesName.CLIENT_ITL_P95, self.itl_p95),
            (SeriesName.OLDEST_WAIT, self.oldest_wait_s),
            (SeriesName.ASKED, self.asked),
            (SeriesName.ACHIEVED, achieved),
        )


Figures = tuple[tuple[SeriesName, float | None], ...]
_decode = msgspec.json.Decoder(SharedLoad).decode


def of(
    load: LoadSnapshot, now: float, events: Sequence[Notice], marks: Sequence[Notice]
) -> SharedLoad:
    """What other processes are shown of our load."""
    return SharedLoad(
        now,
        os.getpid(),
        load.shape[:200],
        load.loop,
        load.running,
        load.held,
        load.asked,
        load.in_flight,
        load.ok,
        load.failed,
        load.requests_per_s,
        load.output_tokens_per_s,
        load.ttft.p95,
        load.refused,
        load.refused_per_s,
        tuple(events[-MOST:]),
        tuple(marks[-MOST:]),
        load.ttft.p50,
        load.ttft.p99,
        load.itl.p95,
        load.oldest_wait_s,
        max(0, load.in_flight - load.waiting_first),
    )


def write(folder: Path, shared: SharedLoad) -> None:
    """Write it, whole or not at all. If the folder is gone or full, only this notice is lost.

    Without a sync, unlike records: after a crash of the machine there is no load.
    """
    spare = folder / f"{FILE}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(spare, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(shared))
        spare.replace(folder / FILE)


def drop(folder: Path) -> None:
    """Our load is over: remove the notice."""
    with contextlib.suppress(OSError):
        (folder / FILE).unlink()


def read(folder: Path, now: float) -> SharedLoad | None:
    """The load of another process; None where there is none, or it is ours or old."""
    try:
        found = _decode(read_own(folder / FILE, LIMIT))
    except (OSError, ValueError):
        return None
    if found.pid == os.getpid() or not -FRESH_S < now - found.time < FRESH_S:
        return None
    return found


def words(notice: Notice, pid: int) -> str:
    """An event of the other screen, as one here."""
    return clean(f"{notice.text} (by llmtop {pid})", 200)


class LoadNotices:
    """What a command without a screen lets others know of its load, in an engine's folder."""

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._wall = folder, wall
        self._events: list[Notice] = []
        self._marks: list[Notice] = []
        self._shape = ""
        self._there = False

    def publish(self, load: LoadSnapshot) -> None:
        """Write the load of now; take the notice away once the load is over."""
        now = self._wall()
        if load.running and load.shape != self._shape:
            self._shape = load.shape
            self._events.append(Notice(now, f"load: {load.shape}"[:200]))
            self._marks.append(Notice(now, "load"))
        if load.running or load.in_flight:
            self._there = True
            write(self._folder, of(load, now, self._events, self._marks))
        elif self._there:
            self._there = False
            drop(self._folder)
