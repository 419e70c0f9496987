"""Decodes the events of one answer's body and passes them to the state of its request."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.protocol import lenient_chunk
from llmtop.loadgen.protocol.answer_body import DONE, AnswerBody, Broken, is_full_queue, is_whole
from llmtop.loadgen.protocol.chunk import Chunk, decode, error_words, is_fault
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.protocol.sse import NamedEvent

NOT_A_CHUNK = "a chunk that is not a completion chunk"


class EventStream:
    """The events of one answer. The transport calls it, and it calls ``reply``.

    It never raises: data that cannot be read fails the request.
    """

    __slots__ = ("_body", "reply")

    def __init__(self, reply: RequestState) -> None:
        self.reply = reply
        self._body = AnswerBody()

    @property
    def over(self) -> bool:
        """Whether the request is over. Then the rest of the answer need not be read."""
        return self.reply.over

    @property
    def between_events(self) -> bool:
        """Whether the next byte starts an event. Only then ``event`` may be called."""
        return not self.reply.over and self._body.between_events

    @property
    def begun(self) -> bool:
        """Whether a byte of the answer was received."""
        return self.reply.first_byte_ns > 0

    def begin(self, at_ns: int) -> None:
        """Record the arrival of the first byte; later calls have no effect."""
        if not self.reply.first_byte_ns:
            self.reply.first_byte_ns = at_ns

    def open_read(self, floor_ns: int, exact: bool = True) -> bool:
        """Begin a read: the bytes that follow were read together; see ``StampError.open``."""
        return self.reply.open_read(floor_ns, exact)

    def full_read(self, stalled_ns: int) -> None:
        """Record that the read was so large that the server may have had to wait."""
        self.reply.stamps.full(stalled_ns)

    def close_read(self) -> None:
        """End a read: all its bytes were passed on."""
        self.reply.close_read()

    def head(
        self, status: int, content_type: bytes, encoding: bytes = b"", retry_after: bool = False
    ) -> None:
        """Take status and headers; see ``AnswerBody.head``."""
        try:
            self._body.head(status, content_type, encoding, retry_after)
        except Broken as error:
            self.reply.fail(str(error))

    def body(self, data: bytes, at_ns: int) -> None:
        """Take the next bytes of the body. at_ns: when they arrived, monotonic nanoseconds."""
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
        """Take the data of one event other than [DONE]; return whether the request is over."""
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
            self._fail_with(event)
            return True
        reply.chunk(chunk, at_ns)
        return reply.over

    def end(self, at_ns: int) -> None:
        """End the answer: its HTTP message is complete."""
        self._flush(at_ns)
        if self._body.turned_away:
            self.reply.refuse(at_ns, self._body.refusal)
        else:
            self.reply.end(at_ns, self._body.refusal)

    def fail(self, reason: str) -> None:
        """End the answer with an error. After [DONE] the request is judged by its answer."""
        reply = self.reply
        if reply.done:
            self._flush(reply.last_ns or reply.first_byte_ns)
        reply.fail(reason)

    def _flush(self, at_ns: int) -> None:
        """Take a last event that lacks the blank line after it."""
        for event in () if self.reply.over else self._body.finish():
            self._dispatch(event, at_ns)

    def _dispatch(self, event: bytes, at_ns: int) -> None:
        if event == DONE:
            self.reply.finish()
        elif type(event) is not NamedEvent:
            self.event(event, at_ns)
        elif event.name == "error":
            self._fail_with(event)
        elif is_whole(event):
            self.event(bytes(event), at_ns)  # else a named event such as ``ping``, with any data

    def _lenient(self, event: bytes) -> Chunk | None:
        """Decode an event that the strict decoder refuses; None if it holds no chunk."""
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

    def _fail_with(self, event: bytes) -> None:
        words = error_words(event)
        reason = f"error in the stream: {words}" if words else "error in the stream"
        # SGLang refuses in the stream: it sends the status before it checks the queue.
        if is_full_queue(words) and not self.reply.chunks:
            self.reply.refuse(self.reply.first_byte_ns, reason)
        else:
            self.reply.fail(reason)


def _is_failure(chunk: Chunk, event: bytes) -> bool:
    """Whether an event reports that the request failed."""
    if chunk.object == "error" or is_fault(chunk.error):
        return True
    return chunk.choices is None and chunk.usage is None and lenient_chunk.is_stray_fault(event)
