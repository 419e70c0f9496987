"""Parses HTTP/1.1 answers on one connection, from bytes as they arrive to the events of each."""

from __future__ import annotations

import httptools

from llmtop.loadgen.protocol.event_stream import EventStream
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.protocol.single_event import first_end, single_event
from llmtop.loadgen.statistics.stamp_error import FULL_READ, PollTimes

MAX_HEAD = 64 * 1024  # bytes of status line and headers; llhttp itself sets no limit
_LF = ord("\n")


class ResponseParser:
    """Parses one answer after the other on a connection that is kept alive.

    ``expect`` a reply, then ``feed``; when ``idle`` again the connection may be used for the next,
    unless ``broken``: then it must be closed.

    Nearly every read is one chunk that holds one event (``single_event``). Its event goes straight
    to the stream of events. All other bytes go through the HTTP parser.
    """

    __slots__ = (
        "_again",
        "_at_ns",
        "_chunk_over",
        "_content_type",
        "_encoding",
        "_framed",
        "_head_size",
        "_in_head",
        "_parser",
        "_polled",
        "_steady",
        "_stream",
        "broken",
    )

    def __init__(self, polled: PollTimes | None = None) -> None:
        self._polled = polled or PollTimes()
        self._parser = httptools.HttpResponseParser(self)
        self._stream: EventStream | None = None
        self._steady: EventStream | None = None  # the same, between two chunks and two events
        self._chunk_over = False  # and of the next one not even the size is known
        self._at_ns = 0
        self._in_head = True
        self._head_size = 0
        self._framed = False
        self._content_type = self._encoding = b""
        self._again = False
        self.broken = False

    @property
    def idle(self) -> bool:
        """Nothing is expected."""
        return self._stream is None

    def expect(self, reply: RequestState) -> None:
        """The next answer belongs to this reply."""
        self._stream = EventStream(reply)
        self._in_head, self._head_size = True, 0

    def feed(self, data: bytes, at_ns: int) -> bool:
        """Bytes that arrived at ``at_ns``; whether this ends the answer or the connection."""
        if self._steady is not None and (event := single_event(data)) is not None:
            self.broken = self._steady.event(event, at_ns)
            return self.broken
        return self._mixed(data, at_ns)

    def _mixed(self, data: bytes, at_ns: int) -> bool:
        """More than one event, or something else: one stamp for all of it."""
        stream = self._stream
        way = self._parse if self._steady is None else self._several
        if stream is None or not stream.open_read(self._polled.ns):  # part of an open read
            return way(data, at_ns)
        if len(data) >= FULL_READ:
            stream.full_read(self._polled.now_ns - at_ns)
        over = way(data, at_ns)
        stream.close_read()
        return over

    def _several(self, data: bytes, at_ns: int) -> bool:
        """More than one chunk lay there: each that can goes the short way, one after the other.

        So a client that fell behind does not fall further behind by what it finds.
        """
        begin = 0
        while self._steady is not None:
            end = first_end(data, begin)
            if end < 0 or end - begin == len(data):
                break
            if self.feed(data[begin:end], at_ns):
                return True
            begin = end
        return begin < len(data) and self._parse(data[begin:], at_ns)

    def _parse(self, data: bytes, at_ns: int) -> bool:
        self._steady = None
        stream = self._stream
        if stream is None:
            self.broken = True  # it speaks without being asked
            return True
        self._at_ns = at_ns
        if self._in_head:
            stream.begin(at_ns)
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.broken = True
            # Bytes after a complete answer spoil the connection, not that answer.
            stream.fail(f"not HTTP: {error}")
            return True
        if self._head_size > MAX_HEAD:
            self.broken = True
            stream.fail("headers without end" if self._in_head else "framing without end")
        elif stream.over and self._stream is not None:
            self.broken = True  # it was judged before its end: the rest is not worth reading
        # No part of a chunk's size ends with LF: with it, nothing of the next chunk is here yet.
        elif self._chunk_over and not self._head_size and data[-1] == _LF and stream.between:
            self._steady = self._stream
        return stream.over

    def eof(self, at_ns: int) -> None:
        """The server closed its side."""
        stream = self._stream
        if stream is None:
            self.broken = True
        elif self._in_head:
            self.fail("closed within the headers" if stream.begun else "closed before the answer")
        elif self._framed:
            self.fail("closed in the middle of the answer")
        else:
            self._detach()
            stream.end(at_ns)  # without a length or chunks, closing is the end

    def fail(self, reason: str) -> None:
        """The connection broke, and with it the answer that is expected."""
        stream = self._stream
        self._detach()
        if stream is not None:
            stream.fail(reason)

    def _detach(self) -> None:
        self.broken = True
        self._stream = self._steady = None

    def on_message_begin(self) -> None:
        """Callback: a status line follows."""
        self._in_head, self._framed = True, False
        self._content_type = self._encoding = b""
        self._chunk_over = self._again = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback: one header."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.lower()
        elif name == b"content-encoding":
            self._encoding = value
        elif name == b"retry-after":
            self._again = True
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Callback: the body follows."""
        status = self._parser.get_status_code()
        if status >= 200 and self._stream is not None:
            self._in_head = False
            self._stream.head(status, self._content_type, self._encoding, self._again)

    def on_body(self, body: bytes) -> None:
        """Callback: a piece of the body."""
        self._head_size = 0  # from now on of what is neither body nor its end, such as trailers
        if self._stream is not None:
            self._stream.body(body, self._at_ns)

    def on_chunk_header(self) -> None:
        """Callback: the size of a chunk."""
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        """Callback: a chunk, and the line end after it."""
        self._chunk_over = True

    def on_message_complete(self) -> None:
        """Callback: the end of an answer, or of a 1xx before it."""
        if self._in_head or self._stream is None:
            return
        stream, self._stream = self._stream, None
        self.broken |= not self._parser.should_keep_alive()
        stream.end(self._at_ns)
