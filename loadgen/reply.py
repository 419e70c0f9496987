"""One request on its way: what has come back so far, whatever carried it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmtop.loadgen.board import LATE_NS, Board, Cell
from llmtop.loadgen.chunk import Usage, clean, decode, error_words
from llmtop.loadgen.clock import NS
from llmtop.loadgen.envelope import limit
from llmtop.loadgen.histogram import bucket
from llmtop.loadgen.results import MAX_GAPS, Fate, RequestRecord
from llmtop.loadgen.sse import Splitter, TooLong

MAX_ERROR_BODY = 64 * 1024  # an error answer longer than this is not read to its end
_KEPT_ERROR_BODY = 4 * 1024
# vLLM and SGLang end a stream that they gave up on as if all were well, but for this word.
_GIVEN_UP = ("abort", "error")
BEYOND = 4  # times what was asked for, and no server's count of tokens is believed
MAX_ANSWER = 256 * 1024  # characters of an answer that are kept for the next turn
_DONE = b"[DONE]"
_TOKENS = int(Cell.TOKENS)  # the enum's own attribute would cost as much as all else per token


class Listener(Protocol):
    """Who started the request."""

    usage_seen: bool  # this server has sent usage before, so a stream without it was cut short

    def first(self, reply: Reply) -> None:
        """The first token came."""

    def over(self, reply: Reply) -> None:
        """It ended, well or not; called once."""


class Reply:
    """A state machine that a transport feeds: ``sent``, ``head``, ``body``, ``end`` or ``fail``.

    All moments in monotonic nanoseconds, 0: not yet. It never raises and keeps little: what comes
    after its end is ignored, and ``over`` tells the transport to let go of the connection.

    turn: of a conversation. keep: the answer's text is wanted. gaps:
    so are the gaps between its pieces.
    """

    __slots__ = (
        "_board",
        "_cached",
        "_cells",
        "_done",
        "_finish",
        "_gaps",
        "_itl",
        "_listener",
        "_plain",
        "_size",
        "_splitter",
        "_tokenless_ns",
        "_told",
        "_usage",
        "_words",
        "_words_size",
        "chunks",
        "error",
        "fate",
        "first_byte_ns",
        "first_ns",
        "first_reasoning_ns",
        "intended_ns",
        "last_ns",
        "over",
        "request",
        "sent_ns",
        "status",
        "turn",
    )

    def __init__(
        self,
        request: bytes,
        intended_ns: int,
        board: Board,
        listener: Listener,
        turn: int = 1,
        keep: bool = False,
        gaps: bool = False,
    ) -> None:
        self.request = request
        self.turn = turn
        self.intended_ns = intended_ns
        self.sent_ns = self.first_byte_ns = 0
        self.first_ns = self.first_reasoning_ns = self.last_ns = 0
        self.chunks = 0
        self.status = 0
        self.over = False
        self.fate = Fate.OK
        self.error = ""
        self._board, self._listener = board, listener
        self._cells, self._itl = board.cells, board.itl.counts
        self._splitter = Splitter()
        self._done = False
        self._told = False  # the server has said how many tokens there were
        self._finish: str | None = None
        self._usage: tuple[int | None, int] | None = None
        self._tokenless_ns = 0  # first completion chunk, even if its text was empty
        self._cached: int | None = None
        self._words: list[str] | None = [] if keep else None
        self._words_size = 0
        self._gaps: list[int] | None = [] if gaps else None
        self._plain = b""  # the beginning of a body that is not a stream
        self._size = 0

    def sent(self, at_ns: int) -> None:
        """The last part of the request was handed to the kernel."""
        if not self.sent_ns:
            self._board.cells[Cell.SENT] += 1
            if at_ns - self.intended_ns > LATE_NS:
                self._board.cells[Cell.LATE] += 1
        self.sent_ns = at_ns
        self._board.lateness.record(at_ns - self.intended_ns)

    def head(self, status: int, content_type: bytes, at_ns: int) -> None:
        """Status and headers are here."""
        self.status = status
        if status == 200 and b"json" in content_type:
            self.status = -200  # an answer in one piece: the server did not stream

    def body(self, data: bytes, at_ns: int) -> None:
        """The next bytes of the body, which arrived at ``at_ns``."""
        if self.over:
            return
        if self.status != 200:
            self._collect(data)
            return
        try:
            for event in self._splitter.feed(data):
                if event == _DONE:
                    self._done = True
                else:
                    self.event(event, at_ns)
        except TooLong:
            self.fail("a line without end in the stream")

    @property
    def between(self) -> bool:
        """Whether the stream stands between two events: then ``event`` may be told of the next."""
        return self.status == 200 and not self.over and self._splitter.clean

    def event(self, event: bytes, at_ns: int) -> None:
        """The data of one event but [DONE], which arrived at ``at_ns``."""
        if self.over:
            return
        try:
            chunk = decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.fail("a chunk that is not a completion chunk")
            return
        if chunk.error is not None or chunk.object == "error":
            words = error_words(event)
            self.fail(f"error in the stream: {words}" if words else "error in the stream")
            return
        if chunk.usage is not None:
            self._count(chunk.usage)
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
        delta, reasoning = choice.delta, False
        if delta is None:
            if not choice.text:
                self._tokenless_ns = self._tokenless_ns or at_ns
                return
            self._keep(choice.text)
        elif delta.content:
            self._keep(delta.content)
        elif delta.reasoning_content or delta.reasoning:
            reasoning = True
        else:
            return
        self._token(at_ns)
        if not self.first_ns or (reasoning and not self.first_reasoning_ns):
            self._begin(at_ns, reasoning)

    def piece(self, text: bytes, at_ns: int) -> None:
        """Content that is not the first and arrived at ``at_ns``: what ``event`` makes of an
        event with that text. text: ASCII."""
        if self._words is not None:
            self._keep(text.decode("ascii"))
        self._token(at_ns)

    def _keep(self, text: str) -> None:
        if self._words is not None and self._words_size < MAX_ANSWER:
            self._words.append(text)
            self._words_size += len(text)

    def _token(self, at_ns: int) -> None:
        self.chunks += 1
        self._cells[_TOKENS] += 1
        last_ns, self.last_ns = self.last_ns, at_ns
        if last_ns:
            self._itl[bucket(at_ns - last_ns)] += 1
            if self._gaps is not None and len(self._gaps) < MAX_GAPS:
                self._gaps.append((at_ns - last_ns) // 1000)

    def end(self, at_ns: int) -> None:
        """The answer is complete as far as HTTP goes."""
        if self.over:
            return
        reason = self._shortfall()
        if reason:
            self._conclude(Fate.FAILED, reason)
            return
        if not self.last_ns:
            # Tokens came, but none of them made text: half a character, or a special token.
            self.first_ns = self.last_ns = self._tokenless_ns or at_ns
            self._first(at_ns)
        self._conclude(Fate.OK, "")

    def fail(self, reason: str) -> None:
        """It broke. A stream that had already said [DONE] is judged by what it brought."""
        if self.over:
            return
        if self._done:
            self.end(self.last_ns or self.first_byte_ns)
            return
        self._conclude(Fate.FAILED, reason)

    def cut(self, why: str = "cut") -> None:
        """We end it ourselves."""
        if not self.over:
            self._conclude(Fate.CUT, why)

    @property
    def tokens(self) -> int:
        """Output tokens: the server's count, else ours."""
        return self._usage[1] if self._usage else self.chunks

    @property
    def begun(self) -> bool:
        """Whether any token came."""
        return bool(self.last_ns)

    @property
    def answer(self) -> str:
        """The content of the answer, where it was to be kept; at most ``MAX_ANSWER``."""
        return "".join(self._words or ())[:MAX_ANSWER]

    def record(self, zero_ns: int, now_ns: int) -> RequestRecord:
        """What is kept of it, now that it is over; moments in seconds after ``zero_ns``."""

        def moment(at_ns: int) -> float | None:
            return (at_ns - zero_ns) / NS if at_ns else None

        return RequestRecord(
            intended=(self.intended_ns - zero_ns) / NS,
            sent=moment(self.sent_ns),
            first_byte=moment(self.first_byte_ns),
            first=moment(self.first_ns),
            last=moment(self.last_ns),
            prompt_tokens=self._usage[0] if self._usage else None,
            tokens=self.tokens,
            counted=self._usage is None,
            fate=self.fate,
            error=self.error,
            first_reasoning=moment(self.first_reasoning_ns),
            turn=self.turn,
            cached_tokens=self._cached,
            gaps_us=None if self._gaps is None else tuple(self._gaps),
            ended=moment(now_ns),
        )

    def _count(self, usage: Usage) -> None:
        if usage.completion_tokens is not None:
            self._told = True
            most = max(limit(self.request) or usage.completion_tokens, self.chunks)
            if usage.completion_tokens > BEYOND * most:
                return  # so many were neither asked for nor seen: what came is counted
            self._usage = (usage.prompt_tokens, usage.completion_tokens)
            if usage.prompt_tokens_details is not None:
                self._cached = usage.prompt_tokens_details.cached_tokens

    def _begin(self, at_ns: int, reasoning: bool) -> None:
        """A token came that is the first of its kind: of content, or of reasoning."""
        none_before = not (self.first_ns or self.first_reasoning_ns)
        if not reasoning:
            self.first_ns = at_ns
        elif not self.first_reasoning_ns:
            self.first_reasoning_ns = at_ns
        if none_before:
            self._first(at_ns)

    def _first(self, at_ns: int) -> None:
        self._board.ttft.record(at_ns - self.intended_ns)
        self._listener.first(self)

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        self._plain += data[: max(0, _KEPT_ERROR_BODY - len(self._plain))]
        if self._size > MAX_ERROR_BODY:
            self.fail(self._refusal())

    def _refusal(self) -> str:
        if self.status == -200:
            words = error_words(self._plain)
            return f"answered in one piece instead of a stream: {words}"
        words = error_words(self._plain)
        return f"HTTP {self.status}: {words}" if words else f"HTTP {self.status}"

    def _shortfall(self) -> str:
        """Why a complete answer is not a good one; "" when it is."""
        if self.status != 200:
            return self._refusal()
        if not self._done:
            return "the stream ended before its [DONE]"
        if self._finish in _GIVEN_UP:
            return f"the server gave up (finish_reason {self._finish})"
        if not self._told and (self._finish is None or self._listener.usage_seen):
            # vLLM ends the streams of an engine that died like this: HTTP 200, [DONE], no usage.
            return "[DONE] without the usage that was asked for"
        if self.tokens == 0:
            return "not one token came"
        return ""

    def _conclude(self, fate: Fate, error: str) -> None:
        self.over = True
        self.fate, self.error = fate, clean(error)
        cells = self._board.cells
        cells[Cell.TOKENS] += self.tokens - self.chunks
        if fate is Fate.OK:
            cells[Cell.OK] += 1
            self._listener.usage_seen |= self._usage is not None
            self._board.e2e.record(self.last_ns - self.intended_ns)
            first_ns = min(at for at in (self.first_ns, self.first_reasoning_ns) if at)
            if self.tokens > 1:
                self._board.tpot.record((self.last_ns - first_ns) // (self.tokens - 1))
        else:
            cells[Cell.FAILED if fate is Fate.FAILED else Cell.CUT] += 1
        self._listener.over(self)
