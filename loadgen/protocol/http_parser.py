"""Parses the HTTP/1.1 answers of one connection, piece by piece as bytes arrive."""

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

    Call ``expect``, then ``feed``. When ``idle`` is true again, the connection can carry the next
    request. If ``broken`` is true, the connection must be closed.

    Nearly every read is one chunk that holds one event (``single_event``). That event goes directly
    to the event stream. All other bytes go through the HTTP parser.
    """

    __slots__ = (
        "_at_ns",
        "_chunk_over",
        "_content_type",
        "_encoding",
        "_fast_stream",
        "_framed",
        "_head_size",
        "_in_head",
        "_parser",
        "_polled",
        "_retry_after",
        "_stream",
        "broken",
    )

    def __init__(self, polled: PollTimes | None = None) -> None:
        self._polled = polled or PollTimes()
        self._parser = httptools.HttpResponseParser(self)
        self._stream: EventStream | None = None
        self._fast_stream: EventStream | None = None  # the stream while between chunks and events
        self._chunk_over = False  # a chunk ended, and the size of the next one is not parsed
        self._at_ns = 0
        self._in_head = True
        self._head_size = 0
        self._framed = False
        self._content_type = self._encoding = b""
        self._retry_after = False
        self.broken = False

    @property
    def idle(self) -> bool:
        """Whether no answer is expected."""
        return self._stream is None

    def expect(self, reply: RequestState) -> None:
        """Assign the next answer to this reply."""
        self._stream = EventStream(reply)
        self._in_head, self._head_size = True, 0

    def feed(self, data: bytes, at_ns: int) -> bool:
        """Parse bytes; return whether they end the answer or the connection.

        at_ns: when they arrived, monotonic nanoseconds.
        """
        if self._fast_stream is not None and (event := single_event(data)) is not None:
            self.broken = self._fast_stream.event(event, at_ns)
            return self.broken
        return self._feed_other(data, at_ns)

    def _feed_other(self, data: bytes, at_ns: int) -> bool:
        """Parse a read that is not a single event; all its bytes have one stamp."""
        stream = self._stream
        parse = self._parse if self._fast_stream is None else self._feed_chunks
        if stream is None or not stream.open_read(self._polled.ns):  # part of an open read
            return parse(data, at_ns)
        if len(data) >= FULL_READ:
            stream.full_read(self._polled.now_ns - at_ns)
        over = parse(data, at_ns)
        stream.close_read()
        return over

    def _feed_chunks(self, data: bytes, at_ns: int) -> bool:
        """Parse a read of several chunks; single events among them take the fast path.

        So a client that is behind does not fall further behind.
        """
        begin = 0
        while self._fast_stream is not None:
            end = first_end(data, begin)
            if end < 0 or end - begin == len(data):
                break
            if self.feed(data[begin:end], at_ns):
                return True
            begin = end
        return begin < len(data) and self._parse(data[begin:], at_ns)

    def _parse(self, data: bytes, at_ns: int) -> bool:
        self._fast_stream = None
        stream = self._stream
        if stream is None:
            self.broken = True  # data without a request
            return True
        self._at_ns = at_ns
        if self._in_head:
            stream.begin(at_ns)
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.broken = True
            # Invalid bytes after a complete answer do not fail that answer.
            stream.fail(f"not HTTP: {error}")
            return True
        if self._head_size > MAX_HEAD:
            self.broken = True
            part = "headers are" if self._in_head else "chunk framing is"
            stream.fail(f"the {part} too long")
        elif stream.over and self._stream is not None:
            self.broken = True  # the request ended early: the rest is not read
        # No part of a chunk size ends with LF, so no byte of the next chunk was parsed yet.
        elif self._chunk_over and not self._head_size and data[-1] == _LF and stream.between_events:
            self._fast_stream = self._stream
        return stream.over

    def eof(self, at_ns: int) -> None:
        """Handle that the server closed its side."""
        stream = self._stream
        if stream is None:
            self.broken = True
        elif self._in_head:
            self.fail("closed within the headers" if stream.begun else "closed before the answer")
        elif self._framed:
            self.fail("closed in the middle of the answer")
        else:
            self._detach()
            stream.end(at_ns)  # without a length or chunks, the close ends the answer

    def fail(self, reason: str) -> None:
        """Fail the expected answer, because the connection broke."""
        stream = self._stream
        self._detach()
        if stream is not None:
            stream.fail(reason)

    def _detach(self) -> None:
        self.broken = True
        self._stream = self._fast_stream = None

    def on_message_begin(self) -> None:
        """Callback: a message begins."""
        self._in_head, self._framed = True, False
        self._content_type = self._encoding = b""
        self._chunk_over = self._retry_after = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback: one header."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.lower()
        elif name == b"content-encoding":
            self._encoding = value
        elif name == b"retry-after":
            self._retry_after = True
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Callback: the headers are complete; the body follows."""
        status = self._parser.get_status_code()
        if status >= 200 and self._stream is not None:
            self._in_head = False
            self._stream.head(status, self._content_type, self._encoding, self._retry_after)

    def on_body(self, body: bytes) -> None:
        """Callback: a piece of the body."""
        self._head_size = 0  # from here on it counts bytes outside the body, such as trailers
        if self._stream is not None:
            self._stream.body(body, self._at_ns)

    def on_chunk_header(self) -> None:
        """Callback: the size of a chunk was parsed."""
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        """Callback: a chunk and the line end after it were parsed."""
        self._chunk_over = True

    def on_message_complete(self) -> None:
        """Callback: the end of an answer, or of a 1xx response before it."""
        if self._in_head or self._stream is None:
            return
        stream, self._stream = self._stream, None
        self.broken |= not self._parser.should_keep_alive()
        stream.end(self._at_ns)
