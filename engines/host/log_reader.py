"""Engine logs: hostile text, read in bounded memory, and limited in size on disk.

The engine writes its log directly. The log may contain terminal escapes, invalid UTF-8 and lines of
megabytes.
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
TAIL_BYTES = 4 * 2**20  # a tail looks back at most this far
BLOCK = 64 * 2**10
_BEFORE = 64  # bytes before a reader's position, by which it detects another file
_KEPT = LINE_CHARS * 4  # bytes: a character of UTF-8 has at most four


class LineReader:
    """Splits chunks of bytes into clean lines. A carriage return also ends a line, for progress
    bars."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0
        self._after_return = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        lines = []
        # "\r\n" is one end of line, also when it is split between two chunks.
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
        """The text after the last end of line, None when empty."""
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
    """Reads the lines added to a log since the last read. Handles truncation and replacement.

    It compares the bytes before its position: the size alone does not reveal a truncated log that
    has grown again, or a new file with the same inode.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._before = b""
        self._lines = LineReader()

    def read(self, most: int = 4 * 2**20) -> list[str]:
        """The new complete lines, from at most ``most`` bytes; the next call continues."""
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
    """A log's last lines at the first ``read``, then the added lines. ``read`` blocks on the disk.

    path: called at each read; a different path (after a restart) is read like the first.
    """

    def __init__(self, path: Callable[[], Path], lines: int) -> None:
        self._where = path
        self._lines = lines
        self._path: Path | None = None
        self._cursor: LogCursor | None = None

    def read(self) -> list[str]:
        """The new complete lines; [] without new lines or without a log."""
        path = self._where()
        if self._cursor is None or path != self._path:
            found, offset = _tail(path, self._lines, partial=False)
            self._path, self._cursor = path, LogCursor(path, offset)
            return found
        return self._cursor.read()


def follow(
    path: Path, stop: threading.Event, *, lines: int = 0, poll_s: float = 0.2
) -> Iterator[str]:
    """The last ``lines`` lines and then each new line, until ``stop`` is set.

    Continues after a rotation, a truncation, or a removal and a new file.
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
    """The path of the rotated part of a log."""
    return path.with_name(path.name + ".1")


def outgrown(path: Path, limit: int = ROTATE_BYTES) -> bool:
    """Whether a log is longer than ``limit`` bytes."""
    try:
        return path.stat().st_size > limit
    except OSError:
        return False


def rotate(path: Path, limit: int = ROTATE_BYTES) -> bool:
    """Move a log of more than ``limit`` bytes to ``.1`` and empty it. Returns whether it did.

    The engine holds the file open, so the content is copied and the file truncated. With O_APPEND
    the engine continues at the new end. If the copy cannot be written, the log stays unchanged.
    """
    if not outgrown(path, limit):
        return False
    try:
        spare = path.with_name(path.name + ".rotating")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with path.open("rb+") as log, open(os.open(spare, flags, 0o600), "wb") as copy:
            try:
                # Lines written between the last read and the truncation are lost, so nothing may
                # happen between them, not even a flush or its error.
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
    """All clean lines from a byte offset on, in bounded memory; none without a log."""
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
        else:  # the line is incomplete: a follower gets it when it is complete
            size -= len(data) - max(data.rfind(b"\n"), data.rfind(b"\r")) - 1
    return list(found), size
