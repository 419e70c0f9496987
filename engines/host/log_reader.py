"""Engine logs: hostile text, read in bounded memory, and kept from filling the disk.

The engine appends to its log by itself; nobody stands between. Whatever is in there may hold
terminal escapes, invalid UTF-8 and lines of megabytes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from llmtop.engines.host.safe_text import LINE_CHARS, clean

ROTATE_BYTES = 64 * 2**20
TAIL_BYTES = 4 * 2**20  # as far back as a tail looks for its lines
BLOCK = 64 * 2**10
_BEFORE = 64  # bytes that a reader knows its place by
_KEPT = LINE_CHARS * 4  # bytes: a character of UTF-8 has at most four


class LineReader:
    """Cuts bytes into clean lines, whatever the pieces. A carriage return ends a line too:
    progress bars write nothing else."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0
        self._after_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        lines = []
        # "\r\n" is one end of line, also when it was cut between the two.
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
            self._after_return = False
        if data:
            self._after_return = data.endswith(b"\r")
        pieces = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for piece in pieces[:-1]:
            self._add(piece)
            lines.append(self._take())
        self._add(pieces[-1])
        return lines

    def rest(self) -> str | None:
        """What came after the last end of line, None when nothing did."""
        return self._take() if self._kept else None

    def _add(self, piece: bytes) -> None:
        room = _KEPT - len(self._kept)
        self._kept += piece[:room]
        self._dropped += max(0, len(piece) - room)

    def _take(self) -> str:
        text = self._kept.decode(errors="replace")
        if self._dropped:
            text = text[:LINE_CHARS]
        line = clean(text)
        if self._dropped:
            line += f" … (line of {len(self._kept) + self._dropped:,} bytes)"
        self._kept.clear()
        self._dropped = 0
        return line


class LogCursor:
    """Reads what was added to a log since the last look. Survives truncation and replacement.

    It knows its place by the bytes before it: a log that was cut and has grown beyond that place
    again, or a new file with the inode of the old one, looks the same by its size.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._before = b""
        self._lines = LineReader()

    def read(self, most: int = 4 * 2**20) -> list[str]:
        """The new whole lines, from at most ``most`` bytes; the rest comes at the next look."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset - len(self._before))
                if file.read(len(self._before)) != self._before:
                    self._offset, self._before, self._lines = 0, b"", LineReader()
                    file.seek(0)
                data = file.read(most)
        except OSError:
            return []
        self._offset += len(data)
        self._before = (self._before + data)[-_BEFORE:]
        return self._lines.feed(data) if data else []


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` clean lines, [] when there is no log; looks back at most 4 MiB."""
    return _tail(path, lines)[0]


class LogFeed:
    """A log's last lines at the first ``read``, later what was added. ``read`` blocks on the disk.

    path: asked each time; another one (the engine was restarted) is begun like the first.
    """

    def __init__(self, path: Callable[[], Path], lines: int) -> None:
        self._where = path
        self._lines = lines
        self._path: Path | None = None
        self._cursor: LogCursor | None = None

    def read(self) -> list[str]:
        """The new whole lines; [] when there are none, or no log."""
        path = self._where()
        if self._cursor is None or path != self._path:
            found, offset = _tail(path, self._lines, partial=False)
            self._path, self._cursor = path, LogCursor(path, offset)
            return found
        return self._cursor.read()


def follow(
    path: Path, stop: threading.Event, *, lines: int = 0, poll_s: float = 0.2
) -> Iterator[str]:
    """The last ``lines`` lines and then each new one, until ``stop`` is set.

    Goes on after the log was rotated, truncated or removed and made again.
    """
    last, offset = _tail(path, lines, partial=False)
    yield from last
    cursor = LogCursor(path, offset)
    while not stop.is_set():
        new = cursor.read()
        yield from new
        if not new:
            stop.wait(poll_s)


def older(path: Path) -> Path:
    """Where the part of a log goes that was rotated away."""
    return path.with_name(path.name + ".1")


def outgrown(path: Path, limit: int = ROTATE_BYTES) -> bool:
    """Whether a log is longer than ``limit`` bytes."""
    try:
        return path.stat().st_size > limit
    except OSError:
        return False


def rotate(path: Path, limit: int = ROTATE_BYTES) -> bool:
    """Move a log that outgrew ``limit`` bytes to ``.1`` and empty it; True when that was done.

    The engine holds the file open, so its content is copied and the file cut: with O_APPEND the
    engine goes on at the new end. When the copy cannot be written the log stays as it is.
    """
    if not outgrown(path, limit):
        return False
    try:
        spare = path.with_name(path.name + ".rotating")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with path.open("rb+") as log, open(os.open(spare, flags, 0o600), "wb") as copy:
            try:
                # What the engine writes between the last read and the cut is lost, so nothing
                # may stand between them, neither a flush nor its error.
                while block := log.read(BLOCK):
                    while block:
                        block = block[os.write(copy.fileno(), block) :]
                os.ftruncate(log.fileno(), 0)
            except OSError:
                spare.unlink(missing_ok=True)
                raise
        spare.replace(older(path))
    except OSError:
        return False
    return True


def read_lines(path: Path, offset: int = 0) -> Iterator[str]:
    """All clean lines from a byte offset on, in bounded memory; none when there is no log."""
    reader = LineReader()
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK):
            yield from reader.feed(block)
    rest = reader.rest()
    if rest is not None:
        yield rest


def _tail(path: Path, lines: int, *, partial: bool = True) -> tuple[list[str], int]:
    try:
        with path.open("rb") as file:
            size = begin = file.seek(0, os.SEEK_END)
            ends = 0
            while begin > 0 and ends <= lines and size - begin < TAIL_BYTES:
                begin = max(0, begin - BLOCK)
                file.seek(begin)
                ends += file.read(BLOCK).count(b"\n")
            file.seek(begin)
            data = file.read(size - begin)
    except OSError:
        return [], 0
    reader = LineReader()
    found = deque(reader.feed(data), maxlen=lines)
    rest = reader.rest()
    if rest is not None:
        if partial:
            found.append(rest)
        else:  # the line is not ended yet: a follower gets it whole
            size -= len(data) - max(data.rfind(b"\n"), data.rfind(b"\r")) - 1
    return list(found), size
