"""Events that a command posts for the dashboards and the recorder of an engine.

``events.jsonl`` in the engine's folder, mode 0600: one ``Event`` a line, its time in unix seconds.
Commands append, others read. It only informs: no process acts on it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from llmtop.analysis.events import Event
from llmtop.engines.host.private_files import read_own, write_whole
from llmtop.printable import clean

FILE = "events.jsonl"
LIMIT = 128 * 1024  # bytes that are read
FULL = LIMIT // 2  # bytes after which the oldest lines go
KEPT = 50  # lines that stay then
WIDEST = 500  # characters of one event

_decode = msgspec.json.Decoder(Event).decode


def post(folder: Path, event: Event) -> None:
    """Append an event. If the folder is gone or the disk full, only this event is lost."""
    path = folder / FILE
    line = msgspec.json.encode(Event(event.time, event.level, clean(event.text, WIDEST)))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        _shorten(path)
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, line + b"\n")  # one call: lines of two commands do not mix
        finally:
            os.close(fd)


def posted(folder: Path) -> list[Event]:
    """What was posted, oldest first; lines that are damaged are left out."""
    try:
        data = read_own(folder / FILE, LIMIT)
    except OSError:
        return []
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            event = _decode(line)
            found.append(Event(event.time, event.level, clean(event.text, WIDEST)))
    return found


def _shorten(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > FULL:
            kept = read_own(path, LIMIT).splitlines(keepends=True)[-KEPT:]
            write_whole(path, b"".join(kept))
