"""Server-sent events out of bytes that may be split anywhere."""

from __future__ import annotations

MAX_LINE = 64 * 1024  # also of one event's data: a token's chunk is some 250 bytes
_BOM = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"


class TooLong(Exception):
    """A line or an event beyond ``MAX_LINE`` bytes."""


class Splitter:
    """Keeps what is incomplete between calls: at most ``MAX_LINE`` bytes of line and of data."""

    __slots__ = ("_begun", "_data", "_line", "_size", "_skip_lf", "clean")

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._size = 0
        self._skip_lf = False
        self._begun = False
        self.clean = False  # it has begun, and nothing is kept from before

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that ``data`` completes. TooLong ends the stream."""
        if self.clean and data[:6] == b"data: " and data[-2:] == b"\n\n":
            event = data[6:-2]
            # Nearly every piece is one event and nothing else: a quarter of the other way's cost.
            if _LF not in event and _CR not in event and len(event) < MAX_LINE - 8:
                return [event]
        events = self._feed_lines(data)
        self.clean = self._begun and not (self._line or self._data or self._skip_lf)
        return events

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self._skip_lf and data.startswith(b"\n"):
            data = data[1:]
        self._skip_lf = False
        text = self._line + data
        if b"\r" in text:
            self._skip_lf = text.endswith(b"\r")  # its LF may be the next byte to come
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
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment has an empty name
        if name != b"data":
            return
        value = value.removeprefix(b" ")
        self._size += len(value) + 1
        if self._size > MAX_LINE:
            self._data.clear()
            raise TooLong
        self._data.append(value)

    @property
    def kept(self) -> int:
        """Bytes kept of what is incomplete."""
        return len(self._line) + self._size
