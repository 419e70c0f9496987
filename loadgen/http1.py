"""HTTP/1.1 answers on one connection, fed as they arrive into the reply that waits for them."""

from __future__ import annotations

import httptools

from llmtop.loadgen.chunk import PLAIN, surroundings
from llmtop.loadgen.reply import Reply

MAX_HEAD = 64 * 1024  # bytes of status line and headers; llhttp itself sets no limit
_LF, _CR = b"\n\r"
_EVENT_END = b"}\n\n\r\n"
LESSONS = 4  # for one answer: a clock in its events changes what is around the text
_NOTHING = b"\0"  # in no event of JSON
_PLAIN = 2048  # reads longer than this are not looked at in the short way


def _opening(size: int) -> bytes:
    """How a read of ``size`` bytes begins when it is one chunk that is one event of JSON.

    Something that no such read begins with when none can have this size.
    """
    for digits in range(1, 5):
        length = b"%x" % max(0, size - digits - len(b"\r\n\r\n"))
        if len(length) == digits:
            return length + b"\r\ndata: {"
    return bytes(size + 1)


_OPENINGS = [_opening(size) for size in range(_PLAIN)]


class Answers:
    """Parses one answer after the other on a connection that is kept alive.

    ``expect`` a reply, then ``feed``; when ``idle`` again the connection may be used for the next,
    unless ``broken``: then it must be closed.

    Nearly every read is one chunk that holds one event. Between two chunks and two events such a
    read leaves the parser and the splitter as they were, so it goes straight to the reply, which
    costs a third of the way through both. Whatever looks different goes through them.

    The events of one answer differ in nothing but their text. What is around it is learnt from one
    of them, so that the next need no decoder; again when that no longer fits, a few times.
    """

    __slots__ = (
        "_after",
        "_at_ns",
        "_before",
        "_chunk_over",
        "_content_type",
        "_framed",
        "_head_size",
        "_in_head",
        "_lessons",
        "_parser",
        "_reply",
        "_steady",
        "broken",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._steady: Reply | None = None  # the same, where the short way may be taken
        self._lessons = 0  # times that this may still be worked out
        self._before = self._after = _NOTHING  # around the text of this answer's next event
        self._chunk_over = False  # and of the next one not even the size is known
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
        self._before = self._after = _NOTHING
        self._lessons = LESSONS
        self._in_head, self._head_size = True, 0

    def feed(self, data: bytes, at_ns: int) -> bool:
        """Bytes that arrived at ``at_ns``; whether this ends the answer or the connection."""
        reply = self._steady
        size = len(data)
        if reply is not None and size < _PLAIN:
            opening = _OPENINGS[size]
            begin = len(opening) - 1
            if (
                data.endswith(self._after)
                and data.startswith(opening)
                and data.startswith(self._before, begin)
            ):
                text = data[begin + len(self._before) : size - len(self._after)]
                if text and not text.translate(None, PLAIN):
                    reply.piece(text, at_ns)
                    return False
            if data.endswith(_EVENT_END) and data.startswith(opening):
                event = data[begin:-4]
                # Numbers, not bytes: looked for in a third of the time.
                if _LF not in event and _CR not in event:
                    reply.event(event, at_ns)
                    if reply.over:
                        self.broken = True
                    elif self._lessons and reply.first_ns:
                        self._learn(event)
                    return reply.over
        return self._parse(data, at_ns) if reply is None else self._several(data, at_ns)

    def _several(self, data: bytes, at_ns: int) -> bool:
        """More than one chunk lay there: each that can goes the short way, one after the other.

        So a client that fell behind does not fall further behind by what it finds.
        """
        begin = 0
        while self._steady is not None:
            end = data.find(_EVENT_END, begin) + len(_EVENT_END)
            if end < len(_EVENT_END) or end - begin == len(data):
                break
            if self.feed(data[begin:end], at_ns):
                return True
            begin = end
        return begin < len(data) and self._parse(data[begin:], at_ns)

    def _learn(self, event: bytes) -> None:
        self._lessons -= 1
        if (around := surroundings(event)) is not None:
            self._before, self._after = around[0], around[1] + _EVENT_END[1:]

    def _parse(self, data: bytes, at_ns: int) -> bool:
        self._steady = None
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
        # No part of a chunk's size ends with LF: with it, nothing of the next chunk is here yet.
        elif self._chunk_over and not self._head_size and data[-1] == _LF and reply.between:
            self._steady = self._reply
        return reply.over

    def eof(self, at_ns: int) -> None:
        """The server closed its side."""
        self.broken = True
        reply, self._reply, self._steady = self._reply, None, None
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
        self._chunk_over = False

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

    def on_chunk_header(self) -> None:
        """Callback: the size of a chunk."""
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        """Callback: a chunk, and the line end after it."""
        self._chunk_over = True

    def on_message_complete(self) -> None:
        """Callback: the end of an answer, or of a 1xx before it."""
        if self._in_head or self._reply is None:
            return
        reply, self._reply = self._reply, None
        self.broken |= not self._parser.should_keep_alive()
        reply.end(self._at_ns)
