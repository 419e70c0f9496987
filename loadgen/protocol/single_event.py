"""Recognises a read that is one HTTP chunk with one event in it, as nearly all reads are."""

from __future__ import annotations

_LONGEST = 2048  # bytes; a longer read is not looked at
_END = b"}\n\n\r\n"
_AFTER = len(b"\n\n\r\n")
_LF, _CR = b"\n\r"


def _opening(size: int) -> bytes:
    """How a read of ``size`` bytes begins when it is one chunk that is one event of JSON.

    Something that no such read begins with when none can have this size.
    """
    for digits in range(1, 5):
        length = b"%x" % max(0, size - digits - len(b"\r\n\r\n"))
        if len(length) == digits:
            return length + b"\r\ndata: {"
    return bytes(size + 1)


_OPENINGS = [_opening(size) for size in range(_LONGEST)]


def single_event(data: bytes) -> bytes | None:
    """The event's data; None for any other read.

    Between two chunks and two events such a read leaves the HTTP parser and the event splitter as
    they were, so it need not pass through them. That costs a third.
    """
    size = len(data)
    if size < _LONGEST and data.endswith(_END):
        opening = _OPENINGS[size]
        if data.startswith(opening):
            event = data[len(opening) - 1 : -_AFTER]
            # Numbers, not bytes: looked for in a third of the time.
            if _LF not in event and _CR not in event:
                return event
    return None


def first_end(data: bytes, begin: int) -> int:
    """Where the first chunk from ``begin`` on may end that holds one event; -1: nowhere."""
    found = data.find(_END, begin)
    return found if found < 0 else found + len(_END)
