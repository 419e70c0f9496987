"""Events that a command posts for the dashboards and the recorder of an engine.

``events.jsonl`` in the engine's folder, mode 0600, contains one ``Event`` per line, with its time
in unix seconds. Commands append; other processes read. It is information only: no process acts on
it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import msgspec

from llmtop.analysis.events import Event
from llmtop.engines.host.private_files import read_own, write_whole
from llmtop.printable import clean

FILE = "events.jsonl"
LIMIT = 128 * 1024  # bytes that are read
FULL = LIMIT // 2  # bytes from which the oldest lines are removed
KEPT = 50  # lines that are kept then
WIDEST = 500  # longest text of an event, in characters

_decode = msgspec.json.Decoder(Event).decode


def post(folder: Path, event: Event) -> None:
    """Append an event. Errors are ignored: they lose only this event. folder: of the engine."""
    path = folder / FILE
    line = msgspec.json.encode(Event(event.time, event.level, clean(event.text, WIDEST)))
    # O_NONBLOCK: a pipe in its place would block the open.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with contextlib.suppress(OSError):
        _shorten(path)
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, line + b"\n")  # one call, so that lines of two commands do not mix
        finally:
            os.close(fd)


def posted(folder: Path) -> list[Event]:
    """The posted events, oldest first, without damaged lines. folder: of the engine."""
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
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size <= FULL:
            return
        kept = b""
        if found.st_size <= LIMIT:
            kept = b"".join(read_own(path, LIMIT).splitlines(keepends=True)[-KEPT:])
        # Otherwise another program wrote it: nobody could read it any more.
        write_whole(path, kept if len(kept) <= FULL else b"")
