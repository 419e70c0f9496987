"""Splits bytes that may be cut anywhere into server-sent events."""

from __future__ import annotations

MAX_LINE = 64 * 1024  # bytes of a line, and of one event's data; a token's chunk has about 250
MAX_NAME = 64  # bytes of an event's name; a longer one is cut off
_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset({b"", b"data", b"event", b"id", b"retry"})  # "": a comment
_LF, _CR = b"\n\r"


class TooLong(Exception):
    """A line or an event is longer than ``MAX_LINE`` bytes."""


class NamedEvent(bytes):
    """The data of an event with a name, such as ``error`` or ``ping``."""

    name: str = ""


class Splitter:
    """Splits a body into events, piece by piece.

    Between calls it keeps at most ``MAX_LINE`` bytes of an incomplete line and as many of data.
    fields: a line of an event stream was received. clean: the stream has begun, and nothing is kept
    from earlier bytes.
    """

    __slots__ = ("_begun", "_data", "_line", "_name", "_size", "_skip_lf", "clean", "fields")

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0
        self._skip_lf = False
        self._begun = False
        self.fields = False
        self.clean = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that ``data`` completes; ``NamedEvent`` for an event with a name.

        Raises TooLong; then the rest of the stream cannot be read.
        """
        if self.clean and data[:6] == b"data: " and data[-2:] == b"\n\n":
            event = data[6:-2]
            # Nearly every piece is one event: this takes a quarter of the general case's time.
            if _LF not in event and _CR not in event and len(event) < MAX_LINE - 8:
                self._skip_lf = False
                return [event]
        events = self._feed_lines(data)
        # A last CR may be followed by an LF in the next bytes; that LF belongs to no event.
        self.clean = self.fields and not (self._line or self._data or self._name)
        return events

    def finish(self) -> list[bytes]:
        """The data of a last event without a blank line or line end, at the end of the body.

        The standard drops such an event. It is used here, because some servers and proxies end
        their streams in this way.
        """
        return self._feed_lines(b"\n\n") if self.kept or self._name else []

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self._skip_lf and data.startswith(b"\n"):
            data = data[1:]
        self._skip_lf = False
        text = self._line + data
        if b"\r" in text:
            self._skip_lf = text.endswith(b"\r")  # its LF may be the next byte
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = text.split(b"\n")
        self._line = lines.pop()
        if len(self._line) > MAX_LINE:
            self._line = b""
            raise TooLong
        events: list[bytes] = []
        for line in lines:
            if not self._begun:
                self._begun = True
                line = line.removeprefix(_BOM)
            if len(line) > MAX_LINE:
                raise TooLong
            if line:
                self._field(line)
            elif self._data or self._name:
                events.append(self._event())
        return events

    def _event(self) -> bytes:
        """Return the event that a blank line has ended, and reset."""
        data, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._size, self._name = 0, b""
        if name in (b"", b"message"):
            return data
        event = NamedEvent(data)
        event.name = name.decode("utf-8", "replace").lower()
        return event

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment has an empty name
        value = value.removeprefix(b" ")
        self.fields = self.fields or name in _FIELDS
        if name == b"event":
            self._name = value[:MAX_NAME]
        if name != b"data":
            return
        self._size += len(value) + 1
        if self._size > MAX_LINE:
            self._data.clear()
            raise TooLong
        self._data.append(value)

    @property
    def foreign(self) -> bool:
        """Whether lines were received, but none of an event stream."""
        return self._begun and not self.fields

    @property
    def kept(self) -> int:
        """Bytes kept of an incomplete event."""
        return len(self._line) + self._size
