"""HTTP/1.1 answers on one connection, fed as they arrive into the reply that waits for them."""

from __future__ import annotations

import httptools

from llmtop.loadgen.reply import Reply

MAX_HEAD = 64 * 1024  # bytes of status line and headers; llhttp itself sets no limit


class Answers:
    """Parses one answer after the other on a connection that is kept alive.

    ``expect`` a reply, then ``feed``; when ``idle`` again the connection may be used for the next,
    unless ``broken``: then it must be closed.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._at_ns = 0
        self._in_head = True
        self._head_size = 0
        self._framed = False
        self._content_type = b""
        self.broken = False

    @property
    def idle(self) -> bool:
        """Nothing is expected."""
        return self._reply is None

    def expect(self, reply: Reply) -> None:
        """The next answer belongs to this reply."""
        self._reply = reply
        self._in_head, self._head_size = True, 0

    def feed(self, data: memoryview, at_ns: int) -> bool:
        """Bytes that arrived at ``at_ns``; whether this ends the answer or the connection."""
        reply = self._reply
        if reply is None:
            self.broken = True  # it speaks without being asked
            return True
        self._at_ns = at_ns
        if self._in_head and not reply.first_byte_ns:
            reply.first_byte_ns = at_ns
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.broken = True
            # Bytes after a complete answer spoil the connection, not that answer.
            reply.fail(f"not HTTP: {error}")
            return True
        if self._head_size > MAX_HEAD:
            self.broken = True
            reply.fail("headers without end" if self._in_head else "framing without end")
        elif reply.over and self._reply is not None:
            self.broken = True  # it was judged before its end: the rest is not worth reading
        return reply.over

    def eof(self, at_ns: int) -> None:
        """The server closed its side."""
        self.broken = True
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if self._in_head:
            begun = reply.first_byte_ns
            reply.fail("closed within the headers" if begun else "closed before the answer")
        elif self._framed:
            reply.fail("closed in the middle of the answer")
        else:
            reply.end(at_ns)  # without a length or chunks, closing is the end

    def on_message_begin(self) -> None:
        """Callback: a status line follows."""
        self._in_head, self._framed, self._content_type = True, False, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback: one header."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Callback: the body follows."""
        status = self._parser.get_status_code()
        if status >= 200 and self._reply is not None:
            self._in_head = False
            self._reply.head(status, self._content_type, self._at_ns)

    def on_body(self, body: bytes) -> None:
        """Callback: a piece of the body."""
        self._head_size = 0  # from now on of what is neither body nor its end, such as trailers
        if self._reply is not None:
            self._reply.body(body, self._at_ns)

    def on_message_complete(self) -> None:
        """Callback: the end of an answer, or of a 1xx before it."""
        if self._in_head or self._reply is None:
            return
        reply, self._reply = self._reply, None
        self.broken |= not self._parser.should_keep_alive()
        reply.end(self._at_ns)
