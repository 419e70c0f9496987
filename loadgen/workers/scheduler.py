"""Decides when to send: the closed and the open loop of one worker."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from llmtop.loadgen.client.transport import Transport
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.results import TIME_OUT, Fate, RequestRecord
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workload.arrivals import Arrivals
from llmtop.loadgen.workload.conversation import Conversation
from llmtop.loadgen.workload.plan import Loop
from llmtop.loadgen.workload.request_id import RequestIds, with_rid
from llmtop.loadgen.workload.schedule import Schedule
from llmtop.loadgen.workload.trace import Size

TICK_NS = 20_000_000  # interval of checks of the level; sends are computed this far ahead
REST_NS = 500_000_000  # pause of a closed-loop stream after a failed request
MAX_SENDS = 256  # in one tick, so that answers are read between ticks
MAX_OVERDUE = 10_000  # sends that a change of schedule can record as not sent
MAX_KEPT = 256 << 20  # bytes of paused conversations; beyond, conversations end early


class RequestSource(Protocol):
    """The source of request bodies: ``prompts.Bodies``."""

    def begin(self, arrivals: int) -> None:
        """Continue with the lengths that belong to this seed of arrivals, and with new texts."""

    def next(self, size: Size | None = None) -> bytes:
        """The next request's body."""

    def conversation(self, size: Size | None = None) -> Conversation | None:
        """The next conversation; None if requests are independent."""

    def pause_ns(self) -> int:
        """The pause before the next turn of a conversation, in nanoseconds."""


class Scheduler:
    """Keeps a worker's share of a schedule in flight. The transport's loop calls ``tick``.

    supply: source of request bodies. emit: called with each request's record at its end. zero_ns:
    zero of the records' clock. timeout_s: of a request. limit: most requests in flight. index,
    count: number of this worker, and of all workers. gaps: records keep the gaps between chunks.
    ids: of the requests, sent to the engine as a header; rid: also in the body, for SGLang.
    monotonic: nanoseconds.
    """

    def __init__(
        self,
        transport: Transport,
        counters: SharedCounters,
        supply: RequestSource,
        emit: Callable[[RequestRecord], None],
        *,
        zero_ns: int,
        timeout_s: float,
        limit: int,
        index: int = 0,
        count: int = 1,
        gaps: bool = False,
        ids: RequestIds | None = None,
        rid: bool = False,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._transport, self._counters, self._supply, self._emit = (
            transport,
            counters,
            supply,
            emit,
        )
        self._zero_ns = zero_ns
        self._timeout_ns = int(timeout_s * NS)
        self._limit, self._index, self._count = limit, index, count
        self._gaps = gaps
        self._ids, self._rid = ids or RequestIds(), rid
        self._now = monotonic
        self._schedule: Schedule | None = None
        self._arrivals: Arrivals | None = None
        self._in_flight: dict[RequestState, int] = {}  # deadline of each; oldest first
        self._waiting: dict[RequestState, None] = {}  # for a first token; oldest first
        self._freed: deque[int] = deque()  # closed loop: ends of answers whose streams continue
        self._resting: list[int] = []  # when failed streams may send again
        self._conversations: dict[RequestState, Conversation] = {}  # of requests in flight
        self._thinking: list[tuple[int, int, Conversation]] = []  # due, serial; a heap
        self._kept = 0  # bytes of conversations in ``_thinking``
        self._serial = 0
        self._changed = True  # something changed since the last tick
        self._until = 0
        self.usage_seen = False

    def steer(self, schedule: Schedule) -> None:
        """Follow this schedule from now on."""
        self._settle_overdue(schedule)
        self._schedule = schedule
        self._changed = True
        self._freed.clear()
        self._arrivals = None
        if schedule.plan.arrivals is not None and schedule.begins:
            self._supply.begin(schedule.plan.arrivals)
        if schedule.plan.loop is Loop.OPEN and not schedule.stopped:
            self._arrivals = Arrivals(
                schedule.flow,
                schedule.since_ns,
                schedule.plan.arrival,
                schedule.arrivals_seed,
                self._index,
                self._count,
                schedule.plan.burstiness,
                schedule.recorded,
            )
        self._counters.cells[Cell.IDLE] = 0
        self._counters.cells[Cell.SCHEDULE] = schedule.number
        if schedule.cut:
            self.cut()

    def cut(self) -> None:
        """Cancel all requests in flight."""
        for reply in list(self._in_flight):
            reply.cut()
            self._transport.drop(reply)

    def tick(self) -> int:
        """Send the requests that are due, and fail those that have timed out.

        Returns the time of the next tick at the latest, monotonic nanoseconds.
        """
        now = self._now()
        if not self._changed and now < self._until:
            return self._until
        self._changed = False
        self._expire(now)
        schedule = self._schedule
        until = now + TICK_NS
        if schedule is not None and not schedule.running(now):
            # The schedule has ended or was stopped: paused conversations end.
            self._counters.cells[Cell.UNFINISHED] += len(self._thinking)
            self._thinking.clear()
            self._kept = 0
        if schedule is not None and not schedule.stopped:
            if schedule.plan.loop is Loop.CLOSED:
                until = self._fill(schedule, now, until)
            else:
                until = self._send_due(now, self._continue_conversations(now, until, self._limit))
        self._publish(now)
        self._until = until
        return until

    def first(self, reply: RequestState) -> None:
        """Handle the first token of a reply."""
        self._changed = True
        self._waiting.pop(reply, None)

    def over(self, reply: RequestState) -> None:
        """Handle the end of a reply."""
        self._changed = True
        self._in_flight.pop(reply, None)
        self._waiting.pop(reply, None)
        if reply.fate in (Fate.FAILED, Fate.REFUSED):
            heapq.heappush(self._resting, self._now() + REST_NS)
        conversation = self._conversations.pop(reply, None)
        if conversation is None and reply.fate is Fate.OK:
            self._freed.append(reply.end_ns)
        if (
            conversation is not None
            and reply.fate is Fate.OK
            and conversation.answered(reply.answer)
        ):
            self._pause(conversation)
        self._emit(reply.record(self._zero_ns, self._now()))

    @property
    def idle(self) -> bool:
        """Whether the schedule has ended and no request is in flight or overdue."""
        return (
            self._schedule is not None
            and not self._schedule.running(self._now())
            and not self._in_flight
            and self._counters.cells[Cell.OLDEST] == 0
        )

    def _fill(self, schedule: Schedule, now: int, until: int) -> int:
        # If the level does not divide evenly, the first workers take one stream more.
        level = int(schedule.level(now) + 0.5)
        share = (level + self._count - 1 - self._index) // self._count
        until = self._continue_conversations(now, until, min(share, self._limit))
        while self._resting and self._resting[0] <= now:
            heapq.heappop(self._resting)
        self._publish_short(max(0, share - self._limit))
        silent = len(self._resting) + len(self._thinking)  # streams without a request in flight
        wanted = min(share, self._limit) - len(self._in_flight) - silent
        for _ in range(min(wanted, MAX_SENDS)):
            self._send(self._now(), freed_ns=self._freed.popleft() if self._freed else 0)
        if wanted > MAX_SENDS:
            return now
        self._freed.clear()  # the level has fallen: these streams have ended
        return until

    def _publish_short(self, short: int) -> None:
        cells = self._counters.cells
        cells[Cell.SHORT] = short
        if short > cells[Cell.MOST_SHORT]:
            cells[Cell.MOST_SHORT] = short

    def _send_due(self, now: int, until: int) -> int:
        assert self._arrivals is not None
        self._resting.clear()
        self._freed.clear()
        self._counters.cells[Cell.SHORT] = 0
        sends = 0
        while (due := self._arrivals.next_due(until)) is not None and due <= now:
            if now - due > self._timeout_ns:
                self._arrivals.take()
                self._record_unsent(due, f"{self._limit} requests were in flight")
            elif len(self._in_flight) >= self._limit:
                # ``_arrivals`` keeps overdue sends. They are sent later and counted as late.
                self._publish_short(1)
                return until
            else:
                self._send(due, self._arrivals.take())
            sends += 1
            if sends == MAX_SENDS:
                return now
        return until if due is None else due

    def _send(self, intended_ns: int, size: Size | None = None, freed_ns: int = 0) -> None:
        conversation = self._supply.conversation(size)
        if conversation is not None:
            self._send_turn(conversation, intended_ns)
        else:
            reply = self._reply(self._supply.next(size), intended_ns)
            reply.freed_ns, reply.floating = freed_ns, self._arrivals is None
            self._start(reply)

    def _send_turn(self, conversation: Conversation, intended_ns: int) -> None:
        reply = self._reply(conversation.body(), intended_ns, conversation)
        self._conversations[reply] = conversation
        self._start(reply)

    def _reply(
        self, body: bytes, intended_ns: int, conversation: Conversation | None = None
    ) -> RequestState:
        request_id = self._ids.next()
        if self._rid and request_id:
            body = with_rid(body, request_id)
        turn = 1 if conversation is None else conversation.turn
        keep = conversation is not None
        return RequestState(
            body, intended_ns, self._counters, self, turn, keep, self._gaps, request_id=request_id
        )

    def _start(self, reply: RequestState) -> None:
        self._in_flight[reply] = self._now() + self._timeout_ns
        self._waiting[reply] = None
        self._transport.send(reply)

    def _pause(self, conversation: Conversation) -> None:
        """Pause a conversation for the time in which its user reads and thinks."""
        if self._kept + conversation.size > MAX_KEPT:
            self._counters.cells[Cell.UNFINISHED] += 1
            return
        self._kept += conversation.size
        self._serial += 1
        due = self._now() + self._supply.pause_ns()
        heapq.heappush(self._thinking, (due, self._serial, conversation))

    def _continue_conversations(self, now: int, until: int, most: int) -> int:
        """Send the next turn of conversations that are due, up to ``most`` requests in flight.

        In the closed loop a conversation is a stream: it ends here if the level has fallen. In the
        open loop its turn is sent late or given up, like any other request. Returns the next time
        to act, at most ``until``.
        """
        schedule = self._schedule
        closed = schedule is not None and schedule.plan.loop is Loop.CLOSED
        for _ in range(MAX_SENDS):
            if not self._thinking or self._thinking[0][0] > now:
                break
            due = self._thinking[0][0]
            over = len(self._in_flight) >= most
            if over and not closed and now - due <= self._timeout_ns:
                return until
            _, _, conversation = heapq.heappop(self._thinking)
            self._kept -= conversation.size
            if not over:
                self._send_turn(conversation, due)
            elif closed:
                self._counters.cells[Cell.UNFINISHED] += 1
            else:
                self._record_unsent(due, f"{most} requests were in flight", turn=conversation.turn)
        return min(until, self._thinking[0][0]) if self._thinking else until

    def _settle_overdue(self, schedule: Schedule) -> None:
        """Send the overdue requests of the schedule before, or record them as not sent."""
        if self._arrivals is None:
            return
        now = self._now()
        if not schedule.cut:
            self._send_due(now, now)
        words = "the load was stopped" if schedule.stopped else "the load changed"
        for _ in range(MAX_OVERDUE):
            due = self._arrivals.next_due(now)
            if due is None:
                return
            self._arrivals.take()
            self._record_unsent(due, words, cut=True)

    def _record_unsent(self, intended_ns: int, why: str, cut: bool = False, turn: int = 1) -> None:
        self._counters.cells[Cell.NOT_SENT] += 1
        reply = RequestState(b"", intended_ns, self._counters, self, turn)
        if cut:
            reply.cut(f"not sent: {why}")
        else:
            reply.fail(f"not sent: {why}")

    def _expire(self, now: int) -> None:
        while self._in_flight:
            reply, deadline = next(iter(self._in_flight.items()))
            if deadline > now:
                return
            reply.fail(f"{TIME_OUT} {self._timeout_ns / NS:g} s")
            self._transport.drop(reply)

    def _publish(self, now: int) -> None:
        oldest = next(iter(self._waiting)).intended_ns if self._waiting else 0
        if self._arrivals is not None:
            overdue = self._arrivals.next_due(now)
            if overdue is not None and (not oldest or overdue < oldest):
                oldest = overdue
        if self._thinking and self._thinking[0][0] <= now:
            oldest = min(oldest or now, self._thinking[0][0])
        cells = self._counters.cells
        cells[Cell.OLDEST] = oldest
        cells[Cell.IN_FLIGHT] = len(self._in_flight)
        cells[Cell.EARLIEST] = next(iter(self._in_flight)).intended_ns if self._in_flight else 0
        cells[Cell.WAITING] = len(self._waiting)
        cells[Cell.THINKING] = len(self._thinking)
