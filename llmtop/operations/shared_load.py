"""Shares the load of one llmtop with other screens of the same engine.

The process that sends the load writes ``load.json`` (mode 0600) in the engine's folder once a
second. Other processes read it. It is information only: no process acts on it.
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
FRESH_S = 5.0  # an older file is ignored: its process sends no load any more
MOST = 20  # number of events, and of marks


class Notice(Struct, frozen=True):
    """One event or mark of the load. time: unix seconds."""

    time: float
    text: str


class SharedLoad(Struct, frozen=True):
    """The load of another llmtop. time: unix seconds. pid: the process that sends it.

    asked: the requested level: streams, or requests per second. Latencies are in seconds.
    """

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
        """The chart series of the client, with their current values."""
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
    """The content of the file for a load of this process. now: unix seconds."""
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
    """Write the file atomically. Errors are ignored: they lose only this information.

    There is no fsync, unlike for records: after a crash of the machine there is no load.
    """
    spare = folder / f"{FILE}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(spare, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(shared))
        spare.replace(folder / FILE)


def drop(folder: Path) -> None:
    """Remove the file after the end of the load."""
    with contextlib.suppress(OSError):
        (folder / FILE).unlink()


def read(folder: Path, now: float) -> SharedLoad | None:
    """The load of another process; None if there is none, it is from this process, or too old."""
    try:
        found = _decode(read_own(folder / FILE, LIMIT))
    except (OSError, ValueError):
        return None
    if found.pid == os.getpid() or not -FRESH_S < now - found.time < FRESH_S:
        return None
    return found


def words(notice: Notice, pid: int) -> str:
    """The text of another process's event, for the event list of this screen."""
    return clean(f"{notice.text} (by llmtop {pid})", 200)


class LoadNotices:
    """Publishes the load of a command without a screen.

    folder: of the engine. wall: unix seconds.
    """

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._wall = folder, wall
        self._events: list[Notice] = []
        self._marks: list[Notice] = []
        self._shape = ""
        self._published = False

    def publish(self, load: LoadSnapshot) -> None:
        """Write the current state of the load; remove the file when the load is over."""
        now = self._wall()
        if load.running and load.shape != self._shape:
            self._shape = load.shape
            self._events.append(Notice(now, f"load: {load.shape}"[:200]))
            self._marks.append(Notice(now, "load"))
        if load.running or load.in_flight:
            self._published = True
            write(self._folder, of(load, now, self._events, self._marks))
        elif self._published:
            self._published = False
            drop(self._folder)
