"""The body of an answer: decompresses it, splits it into events, or keeps an error message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llmtop.loadgen.protocol import lenient_chunk
from llmtop.loadgen.protocol.chunk import error_words
from llmtop.loadgen.protocol.content_coding import Inflater, Unreadable, decoder
from llmtop.loadgen.protocol.sse import NamedEvent, Splitter, TooLong

DONE = b"[DONE]"
NOT_EVENTS = "the answer is not an event stream"
TURNED_AWAY = (429, 503)
_FULL_QUEUE = re.compile(
    r"queue\w* (?:is |was )?(?:full|overflow|limit)|too many (?:requests|queued)|"
    r"max[_ -]?(?:num[_ -]?)?queued|overload|over capacity|rate limit",
    re.IGNORECASE,
)
MAX_ERROR_BODY = 64 * 1024  # bytes; a longer error answer is not read to its end
_KEPT = 4 * 1024  # bytes of an error answer that are kept


class Broken(Exception):
    """The body cannot be read further. The message is the reason, in a few words."""


class AnswerBody:
    """The body of one answer. Call ``head`` before the first bytes.

    streamed: the body is a stream of events; else it is an error or an answer in one piece.
    """

    __slots__ = ("_coding", "_kept", "_retry_after", "_size", "_splitter", "_status", "streamed")

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._coding: Inflater | None = None
        self._status = 0
        self._retry_after = False
        self._kept = b""
        self._size = 0
        self.streamed = False

    def head(
        self, status: int, content_type: bytes, encoding: bytes, retry_after: bool = False
    ) -> None:
        """Take status and headers. Raises Broken for an unknown compression.

        content_type: in lower case. encoding: the value of Content-Encoding. retry_after: whether
        there is a Retry-After header.
        """
        self._status = status
        self._retry_after = retry_after
        self.streamed = status == 200 and b"json" not in content_type
        if encoding:
            try:
                self._coding = decoder(encoding)
            except Unreadable as error:
                raise Broken(str(error) if self.streamed else f"HTTP {status}: {error}") from None

    @property
    def between_events(self) -> bool:
        """Whether the next byte starts an event and the body is not compressed."""
        return self.streamed and self._splitter.clean and self._coding is None

    @property
    def clean(self) -> bool:
        """Whether no part of an event is kept from earlier bytes."""
        return self._splitter.clean

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data of each event that ``data`` completes. Raises Broken."""
        if self._coding is None:
            yield from self._plain(data)
            return
        try:
            for piece in self._coding.feed(data):
                yield from self._plain(piece)
        except Unreadable as error:
            raise Broken(str(error)) from None

    def _plain(self, data: bytes) -> Iterable[bytes]:
        if self.streamed:
            try:
                return self._splitter.feed(data)
            except TooLong:
                raise Broken("a line in the stream is too long") from None
        self._size += len(data)
        self._kept += data[: max(0, _KEPT - len(self._kept))]
        if self._size > MAX_ERROR_BODY:
            raise Broken(self.refusal)
        return ()

    def finish(self) -> Iterator[bytes]:
        """The last event of a complete body, which may lack the blank line after it.

        An event that was cut off in the middle is dropped.
        """
        for event in self._splitter.finish() if self.streamed else ():
            if is_whole(event):
                yield event

    @property
    def turned_away(self) -> bool:
        """Whether the server refused the request because it is full.

        That is status 429, or 503 with Retry-After or with a message about the queue. Any other 503
        is a failure: a proxy without a server behind it answers so.
        """
        if self._status not in TURNED_AWAY:
            return False
        return self._retry_after or self._status == 429 or is_full_queue(error_words(self._kept))

    @property
    def refusal(self) -> str:
        """Why the body is not an event stream, with the server's message; "" for a stream."""
        if self.streamed:
            return NOT_EVENTS if self._splitter.foreign else ""
        words = error_words(self._kept)
        if self._status == 200:
            return f"answered in one piece instead of a stream: {words}"
        return f"HTTP {self._status}: {words}" if words else f"HTTP {self._status}"


def is_full_queue(words: str) -> bool:
    """Whether an error message reports a full queue."""
    return _FULL_QUEUE.search(words) is not None


def is_whole(event: bytes) -> bool:
    """Whether an event is complete in itself: a named error, [DONE], or a JSON object."""
    if type(event) is NamedEvent and event.name == "error":
        return True
    return event.strip() == DONE or lenient_chunk.decode(event) is not None
