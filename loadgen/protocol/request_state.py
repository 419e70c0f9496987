"""The state of one request: what has come back so far, over any transport."""

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
_TOKENS = int(Cell.TOKENS)  # the enum's own attribute would cost as much as all else per token


class Listener(Protocol):
    """Who started the request."""

    usage_seen: bool  # this server has sent usage before, so a stream without it was cut short

    def first(self, reply: RequestState) -> None:
        """The first token came."""

    def over(self, reply: RequestState) -> None:
        """It ended, well or not; called once."""


class RequestState:
    """A state machine. A transport calls ``begins`` and ``sent``; the events of the answer
    (``EventStream``) call ``chunk``, ``finish``, and ``end`` or ``fail``.

    All moments in monotonic nanoseconds, 0: not yet. It never raises and keeps little: what comes
    after its end is ignored, and ``over`` asks the transport to release the connection.

    turn: of a conversation. keep: the answer's text is wanted. gaps: so are the gaps between its
    pieces. request_id: what the engine is asked to call the request; "" for none.
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
        self.freed_ns, self.floating = 0, False  # see ``begins``; end of its stream's last answer
        self.stamps = StampError(counters)
        self.first_ns = self.first_reasoning_ns = self.last_ns = 0
        self.chunks = 0
        self.over = False
        self.fate = Fate.OK
        self.error = ""
        self._counters, self._listener = counters, listener
        self._cells, self._itl = counters.cells, counters.itl.counts
        self._closing = Closing()
        self.whole = False  # no part of an event is left over from the last read
        self._tokenless_ns = 0  # first completion chunk, even if its text was empty
        self._words: list[str] | None = [] if keep else None
        self._words_size = 0
        self._gaps: list[int] | None = [] if gaps else None

    def begins(self, at_ns: int) -> None:
        """Sending begins. In a closed loop nothing was due before: it is no part of a latency."""
        if self.floating:
            self.intended_ns = at_ns

    def sent(self, at_ns: int, ours_ns: int | None = None) -> None:
        """The last part of the request was handed to the kernel.

        ours_ns: of the time since its intended moment, what can have been this client's.
        """
        late_ns = at_ns - self.intended_ns
        ours_ns = late_ns if ours_ns is None else ours_ns
        self.stamps.sent(ours_ns, self.intended_ns - self.freed_ns if self.freed_ns else 0)
        if not self.sent_ns:
            self._counters.cells[Cell.SENT] += 1
            if late_ns > LATE_NS:
                self._counters.cells[Cell.LATE] += 1
        self.sent_ns = at_ns
        self._counters.lateness.record(late_ns)

    def open_read(self, floor_ns: int, exact: bool = True) -> bool:
        """Bytes follow that were read at once; see ``StampError.open``."""
        return self.stamps.open(self.chunks, self.last_ns, floor_ns, exact)

    def close_read(self) -> None:
        """All that was read at once has been passed on."""
        sent_ns = self.sent_ns or self.intended_ns
        self.stamps.close(self.chunks, self.last_ns, self.intended_ns, sent_ns, self.whole)

    @property
    def done(self) -> bool:
        """Whether [DONE] came."""
        return self._closing.done

    def finish(self) -> None:
        """[DONE] came."""
        self._closing.done = True
        self.stamps.no_token(self.chunks)

    def remark(self, remarks: tuple[Remark, ...]) -> None:
        """Something about its next chunk is odd."""
        self._closing.remark(remarks)

    def chunk(self, chunk: Chunk, at_ns: int) -> None:
        """A chunk that reports no error, and arrived at ``at_ns``."""
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
            self._begin(at_ns, reasoning)

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
        """The answer is complete as far as HTTP goes. refusal: why it is no stream; "" for one."""
        if self.over:
            return
        self.end_ns = at_ns
        usage_seen = self._listener.usage_seen
        reason = refusal or self._closing.shortfall(self.request, self.chunks, usage_seen)
        if reason:
            self._conclude(Fate.FAILED, reason)
            return
        if not self.last_ns:
            # Tokens came, but none of them made text: half a character, or a special token.
            self.first_ns = self.last_ns = self._tokenless_ns or at_ns
            self._first(at_ns)
        self._conclude(Fate.OK, "")

    def refuse(self, at_ns: int, reason: str) -> None:
        """The server's queue is full, and it said so at once."""
        if not self.over:
            self.end_ns = at_ns
            self._conclude(Fate.REFUSED, reason)

    def fail(self, reason: str) -> None:
        """It broke. A stream that has sent [DONE] is judged by what it brought."""
        if self.over:
            return
        if self._closing.done:
            self.end(self.last_ns or self.first_byte_ns)
            return
        self._conclude(Fate.FAILED, reason)

    def cut(self, why: str = "cut") -> None:
        """We end it ourselves."""
        if not self.over:
            self._conclude(Fate.CUT, why)

    @property
    def answer(self) -> str:
        """The content of the answer, where it was to be kept; at most ``MAX_ANSWER``."""
        return "".join(self._words or ())[:MAX_ANSWER]

    def record(self, zero_ns: int, now_ns: int) -> RequestRecord:
        """What is kept of it, now that it is over; moments in seconds after ``zero_ns``."""
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
            # Where all came at one moment, how long a token took is not known.
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
