"""The state of one request, independent of the transport."""

from __future__ import annotations

from typing import Protocol

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.results import MAX_GAPS, Fate, Remark, RequestRecord
from llmtop.loadgen.protocol.chunk import MAX_WORDS, Chunk, calls, whole
from llmtop.loadgen.protocol.closing import Closing
from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import LATE_NS, Cell, SharedCounters
from llmtop.loadgen.statistics.stamp_error import StampError
from llmtop.printable import clean

MAX_ANSWER = 256 * 1024  # characters of an answer that are kept for the next turn
_CELLS = {Fate.REFUSED: Cell.REFUSED, Fate.FAILED: Cell.FAILED, Fate.CUT: Cell.CUT}
_TOKENS = int(Cell.TOKENS)  # the enum access would double the time per token


class Listener(Protocol):
    """The object that started a request and is notified of its progress."""

    usage_seen: bool  # this server has sent usage before, so a stream without it is incomplete

    def first(self, reply: RequestState) -> None:
        """The first token was received."""

    def over(self, reply: RequestState) -> None:
        """The request ended, successfully or not; called once."""


class RequestState:
    """The state machine of one request.

    A transport calls ``begins`` and ``sent``. ``EventStream`` calls ``chunk``, ``finish``, and
    ``end`` or ``fail``. All times are monotonic nanoseconds; 0: not yet. It never raises. Events
    after its end are ignored, and ``over`` tells the transport to release the connection.

    request: the body. intended_ns: when it was due. turn: number of the turn in a conversation.
    keep: keep the answer's text. gaps: keep the gaps between the chunks. request_id: sent to the
    engine as the id of the request; "" for none.
    """

    __slots__ = (
        "_cells",
        "_closing",
        "_counters",
        "_gaps",
        "_itl",
        "_listener",
        "_tokenless_ns",
        "_words",
        "_words_size",
        "chunks",
        "end_ns",
        "error",
        "fate",
        "first_byte_ns",
        "first_ns",
        "first_reasoning_ns",
        "floating",
        "freed_ns",
        "intended_ns",
        "last_ns",
        "over",
        "request",
        "request_id",
        "sent_ns",
        "stamps",
        "turn",
        "whole",
    )  # fmt: skip

    def __init__(
        self,
        request: bytes,
        intended_ns: int,
        counters: SharedCounters,
        listener: Listener,
        turn: int = 1,
        keep: bool = False,
        gaps: bool = False,
        request_id: str = "",
    ) -> None:
        self.request, self.request_id = request, request_id
        self.turn = turn
        self.intended_ns = intended_ns
        self.sent_ns = self.first_byte_ns = self.end_ns = 0
        self.freed_ns, self.floating = 0, False  # end of its stream's last answer; see ``begins``
        self.stamps = StampError(counters)
        self.first_ns = self.first_reasoning_ns = self.last_ns = 0
        self.chunks = 0
        self.over = False
        self.fate = Fate.OK
        self.error = ""
        self._counters, self._listener = counters, listener
        self._cells, self._itl = counters.cells, counters.itl.counts
        self._closing = Closing()
        self.whole = False  # the last read ended at the end of an event
        self._tokenless_ns = 0  # first completion chunk with an empty text
        self._words: list[str] | None = [] if keep else None
        self._words_size = 0
        self._gaps: list[int] | None = [] if gaps else None

    def begins(self, at_ns: int) -> None:
        """Record the start of sending; in a closed loop (``floating``) it is the intended time."""
        if self.floating:
            self.intended_ns = at_ns

    def sent(self, at_ns: int, own_ns: int | None = None) -> None:
        """Record that the last part of the request was handed to the kernel.

        own_ns: the part of the delay since the intended time that this client may have caused;
        None: all of it.
        """
        late_ns = at_ns - self.intended_ns
        own_ns = late_ns if own_ns is None else own_ns
        self.stamps.sent(own_ns, self.intended_ns - self.freed_ns if self.freed_ns else 0)
        if not self.sent_ns:
            self._counters.cells[Cell.SENT] += 1
            if late_ns > LATE_NS:
                self._counters.cells[Cell.LATE] += 1
        self.sent_ns = at_ns
        self._counters.lateness.record(late_ns)

    def open_read(self, floor_ns: int, exact: bool = True) -> bool:
        """Begin a read: the bytes that follow were read together; see ``StampError.open``."""
        return self.stamps.open(self.chunks, self.last_ns, floor_ns, exact)

    def close_read(self) -> None:
        """End a read: all its bytes were passed on."""
        sent_ns = self.sent_ns or self.intended_ns
        self.stamps.close(self.chunks, self.last_ns, self.intended_ns, sent_ns, self.whole)

    @property
    def done(self) -> bool:
        """Whether [DONE] was received."""
        return self._closing.done

    def finish(self) -> None:
        """Record [DONE]."""
        self._closing.done = True
        self.stamps.no_token(self.chunks)

    def remark(self, remarks: tuple[Remark, ...]) -> None:
        """Record the anomalies of the next chunk."""
        self._closing.remark(remarks)

    def chunk(self, chunk: Chunk, at_ns: int) -> None:
        """Take a chunk that reports no error. at_ns: when it arrived."""
        if chunk.usage is not None:
            self._closing.count(chunk.usage)
        choices = chunk.choices
        if not choices:
            self.stamps.no_token(self.chunks)
            return
        choice = choices[0] if len(choices) == 1 else whole(choices)
        if choice.finish_reason is not None:
            self._closing.finish = choice.finish_reason
        delta, reasoning = choice.delta, False
        if delta is None:
            if not choice.text:
                self._tokenless_ns = self._tokenless_ns or at_ns
                self.stamps.no_token(self.chunks)
                return
            self._keep(choice.text)
        elif delta.content:
            self._keep(delta.content)
        elif delta.reasoning_content or delta.reasoning:
            reasoning = True
        elif not calls(delta):
            self.stamps.no_token(self.chunks)
            return
        self._token(at_ns)
        if not self.first_ns or (reasoning and not self.first_reasoning_ns):
            self._first_of_kind(at_ns, reasoning)

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

    def end(self, at_ns: int, refusal: str = "") -> None:
        """End the request: the HTTP message is complete. refusal: why it is no stream, or ""."""
        if self.over:
            return
        self.end_ns = at_ns
        usage_seen = self._listener.usage_seen
        reason = refusal or self._closing.shortfall(self.request, self.chunks, usage_seen)
        if reason:
            self._conclude(Fate.FAILED, reason)
            return
        if not self.last_ns:
            # Tokens without text, such as half a character or a special token.
            self.first_ns = self.last_ns = self._tokenless_ns or at_ns
            self._first(at_ns)
        self._conclude(Fate.OK, "")

    def refuse(self, at_ns: int, reason: str) -> None:
        """End the request as refused: the server's queue is full."""
        if not self.over:
            self.end_ns = at_ns
            self._conclude(Fate.REFUSED, reason)

    def fail(self, reason: str) -> None:
        """End the request as failed. After [DONE] it is judged by its answer instead."""
        if self.over:
            return
        if self._closing.done:
            self.end(self.last_ns or self.first_byte_ns)
            return
        self._conclude(Fate.FAILED, reason)

    def cut(self, why: str = "cut") -> None:
        """End the request as cancelled by this client."""
        if not self.over:
            self._conclude(Fate.CUT, why)

    @property
    def answer(self) -> str:
        """The text of the answer, if it was kept; at most ``MAX_ANSWER`` characters."""
        return "".join(self._words or ())[:MAX_ANSWER]

    def record(self, zero_ns: int, now_ns: int) -> RequestRecord:
        """The record of a request that is over; times in seconds after ``zero_ns``."""
        tokens = self._closing.tokens or self._closing.settle(self.request, self.chunks)

        def moment(at_ns: int) -> float | None:
            return (at_ns - zero_ns) / NS if at_ns else None

        return RequestRecord(
            intended=(self.intended_ns - zero_ns) / NS,
            sent=moment(self.sent_ns),
            first_byte=moment(self.first_byte_ns),
            first=moment(self.first_ns),
            last=moment(self.last_ns),
            prompt_tokens=tokens.prompt,
            tokens=tokens.output,
            counted=tokens.counted,
            fate=self.fate,
            error=self.error,
            first_reasoning=moment(self.first_reasoning_ns),
            turn=self.turn,
            cached_tokens=tokens.cached,
            gaps_us=None if self._gaps is None else tuple(self._gaps),
            ended=moment(now_ns),
            send_error=self.stamps.sent_ns / NS,
            first_error=self.stamps.first_ns / NS,
            last_error=self.stamps.last_ns / NS,
            chunks=self.chunks,
            request_id=self.request_id,
            remarks=(*self._closing.remarks, *tokens.remarks),
        )

    def _first_of_kind(self, at_ns: int, reasoning: bool) -> None:
        """Handle the first token of content, or the first token of reasoning."""
        none_before = not (self.first_ns or self.first_reasoning_ns)
        if not reasoning:
            self.first_ns = at_ns
        elif not self.first_reasoning_ns:
            self.first_reasoning_ns = at_ns
        if none_before:
            self._first(at_ns)

    def _first(self, at_ns: int) -> None:
        self._counters.ttft.record(at_ns - self.intended_ns)
        self.stamps.first(at_ns - self.intended_ns)
        self._listener.first(self)

    def _conclude(self, fate: Fate, error: str) -> None:
        self.over = True
        self.close_read()
        self.fate, self.error = fate, clean(error, MAX_WORDS)
        found = self._closing.settle(self.request, self.chunks, whole=fate is Fate.OK)
        tokens, cells = found.output, self._cells
        cells[_TOKENS] += tokens - self.chunks
        if fate is Fate.OK:
            cells[Cell.OK] += 1
            self._listener.usage_seen |= not found.counted
            self._counters.e2e.record(e2e_ns := self.last_ns - self.intended_ns)
            first_ns = min(at for at in (self.first_ns, self.first_reasoning_ns) if at)
            # If all tokens arrived together, the time per token is not known.
            streaming_ns = self.last_ns - first_ns
            gaps = tokens - 1 if streaming_ns > 0 else 0
            if gaps > 0:
                self._counters.tpot.record(streaming_ns // gaps)
            flight_ns = max(0, self.end_ns - self.sent_ns)
            self.stamps.concluded(e2e_ns, streaming_ns, gaps, self.last_ns, flight_ns)
            if not found.counted:
                cells[Cell.PIECES] += self.chunks
                cells[Cell.IN_PIECES] += tokens
        else:
            cells[_CELLS[fate]] += 1
        self._listener.over(self)
