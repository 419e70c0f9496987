"""Decodes the events of one answer's body and passes them to the state of its request."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.protocol import lenient_chunk
from llmtop.loadgen.protocol.answer_body import DONE, AnswerBody, Broken, is_full_queue, is_whole
from llmtop.loadgen.protocol.chunk import Chunk, decode, error_words, is_fault
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.protocol.sse import Named

NOT_A_CHUNK = "a chunk that is not a completion chunk"


class EventStream:
    """One answer's. What carries the bytes calls it, and it calls ``reply``; nothing flows back but
    whether the request is over.

    Never raises: what cannot be read fails the request.
    """

    __slots__ = ("_body", "reply")

    def __init__(self, reply: RequestState) -> None:
        self.reply = reply
        self._body = AnswerBody()

    @property
    def over(self) -> bool:
        """Whether the request is over: the rest of its answer is not worth reading."""
        return self.reply.over

    @property
    def between(self) -> bool:
        """Whether the stream stands between two events: then ``event`` may be given the next."""
        return not self.reply.over and self._body.between

    @property
    def begun(self) -> bool:
        """Whether a byte of the answer came."""
        return self.reply.first_byte_ns > 0

    def begin(self, at_ns: int) -> None:
        """A byte of the answer came; of several calls the first counts."""
        if not self.reply.first_byte_ns:
            self.reply.first_byte_ns = at_ns

    def open_read(self, floor_ns: int, exact: bool = True) -> bool:
        """Bytes follow that were read at once; see ``StampError.open``."""
        return self.reply.open_read(floor_ns, exact)

    def full_read(self, stalled_ns: int) -> None:
        """The open read found so much that the server may have had to wait."""
        self.reply.stamps.full(stalled_ns)

    def close_read(self) -> None:
        """All that was read at once has been passed on."""
        self.reply.close_read()

    def head(
        self, status: int, content_type: bytes, encoding: bytes = b"", again: bool = False
    ) -> None:
        """Status and headers are here. encoding: the value of Content-Encoding. again: there is a
        Retry-After."""
        try:
            self._body.head(status, content_type, encoding, again)
        except Broken as error:
            self.reply.fail(str(error))

    def body(self, data: bytes, at_ns: int) -> None:
        """The next bytes of the body, which arrived at ``at_ns``."""
        reply, body = self.reply, self._body
        try:
            for event in () if reply.over else body.feed(data):
                reply.whole = body.clean
                self._dispatch(event, at_ns)
                if reply.over:
                    return
        except Broken as error:
            reply.fail(str(error))
        reply.whole = body.clean

    def event(self, event: bytes, at_ns: int) -> bool:
        """The data of one event but [DONE]; whether the request is over."""
        reply = self.reply
        if reply.over:
            return True
        chunk: Chunk | None
        try:
            chunk = decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            chunk = self._lenient(event)
        if chunk is None:
            return reply.over
        if (
            chunk.error is not None or chunk.object == "error" or chunk.choices is None
        ) and _is_failure(chunk, event):
            self._fault(event)
            return True
        reply.chunk(chunk, at_ns)
        return reply.over

    def end(self, at_ns: int) -> None:
        """The answer is complete as far as HTTP goes."""
        self._flush(at_ns)
        if self._body.turned_away:
            self.reply.refuse(at_ns, self._body.refusal)
        else:
            self.reply.end(at_ns, self._body.refusal)

    def fail(self, reason: str) -> None:
        """It broke. A stream that has sent [DONE] is judged by what it brought."""
        reply = self.reply
        if reply.done:
            self._flush(reply.last_ns or reply.first_byte_ns)
        reply.fail(reason)

    def _flush(self, at_ns: int) -> None:
        """A last event that lacks the blank line after it."""
        for event in () if self.reply.over else self._body.finish():
            self._dispatch(event, at_ns)

    def _dispatch(self, event: bytes, at_ns: int) -> None:
        if event == DONE:
            self.reply.finish()
        elif type(event) is not Named:
            self.event(event, at_ns)
        elif event.name == "error":
            self._fault(event)
        elif is_whole(event):
            self.event(bytes(event), at_ns)  # else a remark such as ``ping``, with any data at all

    def _lenient(self, event: bytes) -> Chunk | None:
        """An event that the strict decoder refuses, as far as it can be read; None: it has no
        chunk."""
        words = event.strip()
        if not words:
            return None  # a heartbeat
        if words == DONE:
            self.reply.finish()
            return None
        found = lenient_chunk.decode(event)
        if found is None:
            self.reply.fail(NOT_A_CHUNK)
            return None
        self.reply.remark(found[1])
        return found[0]

    def _fault(self, event: bytes) -> None:
        words = error_words(event)
        reason = f"error in the stream: {words}" if words else "error in the stream"
        # SGLang refuses a stream so: its status was sent before the queue was looked at.
        if is_full_queue(words) and not self.reply.chunks:
            self.reply.refuse(self.reply.first_byte_ns, reason)
        else:
            self.reply.fail(reason)


def _is_failure(chunk: Chunk, event: bytes) -> bool:
    """Whether an event reports that the request failed."""
    if chunk.object == "error" or is_fault(chunk.error):
        return True
    return chunk.choices is None and chunk.usage is None and lenient_chunk.is_stray_fault(event)
