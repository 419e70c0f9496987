"""Decides when to send: the closed and the open loop of one worker, on any transport and clock."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Protocol

from llmtop.loadgen.arrivals import Arrivals
from llmtop.loadgen.board import Board, Cell
from llmtop.loadgen.clock import NS
from llmtop.loadgen.course import Course
from llmtop.loadgen.plan import Loop
from llmtop.loadgen.reply import Reply
from llmtop.loadgen.results import TIME_OUT, Fate, RequestRecord
from llmtop.loadgen.talk import Talk
from llmtop.loadgen.trace import Size
from llmtop.loadgen.transport import Transport

TICK_NS = 20_000_000  # how often the level is looked at, and how far ahead sends are worked out
REST_NS = 500_000_000  # a stream of a closed loop that failed stays silent for this long
MAX_SENDS = 256  # in one go, so that answers are read in between
MAX_OVERDUE = 10_000  # sends that a change of course can count as not sent
MAX_KEPT = 256 << 20  # bytes of conversations whose users think; beyond, conversations end early


class Supply(Protocol):
    """What is asked: ``prompts.Bodies``."""

    def next(self, size: Size | None = None) -> bytes:
        """The next request's body."""

    def talk(self, size: Size | None = None) -> Talk | None:
        """The next conversation; None when requests stand alone."""

    def pause_ns(self) -> int:
        """How long the user thinks before the next turn."""


class Driver:
    """Keeps a worker's share of a course in flight. The transport's loop calls ``tick`` every turn.

    index, count: which of how many workers this is. supply: what is asked. limit: most requests
    in flight. emit: takes each request's record at its end. zero_ns: zero of the records' clock.
    gaps: records keep those between the pieces of an answer.
    """

    def __init__(
        self,
        transport: Transport,
        board: Board,
        supply: Supply,
        emit: Callable[[RequestRecord], None],
        *,
        zero_ns: int,
        timeout_s: float,
        limit: int,
        index: int = 0,
        count: int = 1,
        gaps: bool = False,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._transport, self._board, self._supply, self._emit = transport, board, supply, emit
        self._zero_ns = zero_ns
        self._timeout_ns = int(timeout_s * NS)
        self._limit, self._index, self._count = limit, index, count
        self._gaps = gaps
        self._now = monotonic
        self._course: Course | None = None
        self._arrivals: Arrivals | None = None
        self._flying: dict[Reply, int] = {}  # when each has taken too long; oldest first
        self._waiting: dict[Reply, None] = {}  # without a token yet; oldest first
        self._resting: list[int] = []  # moments at which failed streams may try again
        self._talks: dict[Reply, Talk] = {}  # the conversations of what is in flight
        self._thinking: list[tuple[int, int, Talk]] = []  # when each goes on; a heap
        self._kept = 0  # bytes of those
        self._serial = 0
        self._changed = True  # since the last look: not every turn needs one
        self._until = 0
        self.usage_seen = False

    def steer(self, course: Course) -> None:
        """From now on follow this course."""
        self._settle_overdue(course)
        self._course = course
        self._changed = True
        self._arrivals = None
        if course.plan.loop is Loop.OPEN and not course.stopped:
            self._arrivals = Arrivals(
                course.flow,
                course.since_ns,
                course.plan.arrival,
                f"arrivals {course.plan.seed} {course.number}",
                self._index,
                self._count,
                course.plan.burstiness,
                course.recorded,
            )
        self._board.cells[Cell.IDLE] = 0
        self._board.cells[Cell.COURSE] = course.number
        if course.cut:
            self.cut()

    def cut(self) -> None:
        """End everything in flight."""
        for reply in list(self._flying):
            reply.cut()
            self._transport.drop(reply)

    def tick(self) -> int:
        """Send what is due, give up on what takes too long.

        Returns the moment to come back at the latest.
        """
        now = self._now()
        if not self._changed and now < self._until:
            return self._until
        self._changed = False
        self._expire(now)
        course = self._course
        until = now + TICK_NS
        if course is not None and not course.running(now):
            # What has ended, or was stopped, goes on with nothing.
            self._board.cells[Cell.UNFINISHED] += len(self._thinking)
            self._thinking.clear()
            self._kept = 0
        if course is not None and not course.stopped:
            if course.plan.loop is Loop.CLOSED:
                until = self._fill(course, now, until)
            else:
                until = self._send_due(now, self._go_on(now, until, self._limit))
        self._show(now)
        self._until = until
        return until

    def first(self, reply: Reply) -> None:
        """A reply's first token came."""
        self._changed = True
        self._waiting.pop(reply, None)

    def over(self, reply: Reply) -> None:
        """A reply ended."""
        self._changed = True
        self._flying.pop(reply, None)
        self._waiting.pop(reply, None)
        if reply.fate is Fate.FAILED:
            heapq.heappush(self._resting, self._now() + REST_NS)
        talk = self._talks.pop(reply, None)
        if talk is not None and reply.fate is Fate.OK and talk.answered(reply.answer):
            self._think(talk)
        self._emit(reply.record(self._zero_ns, self._now()))

    @property
    def idle(self) -> bool:
        """The course has ended and nothing is in flight."""
        return (
            self._course is not None
            and not self._course.running(self._now())
            and not self._flying
            and self._board.cells[Cell.OLDEST] == 0
        )

    def _fill(self, course: Course, now: int, until: int) -> int:
        # Worker i of n takes a stream more than the others when the level does not divide evenly.
        level = int(course.level(now) + 0.5)
        share = (level + self._count - 1 - self._index) // self._count
        until = self._go_on(now, until, min(share, self._limit))
        while self._resting and self._resting[0] <= now:
            heapq.heappop(self._resting)
        self._board.cells[Cell.SHORT] = max(0, share - self._limit)
        silent = len(self._resting) + len(self._thinking)  # streams, although nothing is in flight
        wanted = min(share, self._limit) - len(self._flying) - silent
        for _ in range(min(wanted, MAX_SENDS)):
            self._send(self._now())
        return now if wanted > MAX_SENDS else until

    def _send_due(self, now: int, until: int) -> int:
        assert self._arrivals is not None
        self._resting.clear()
        sends = 0
        while (due := self._arrivals.next_due(until)) is not None and due <= now:
            if now - due > self._timeout_ns:
                self._arrivals.take()
                self._never_sent(due, f"{self._limit} requests were in flight")
            elif len(self._flying) >= self._limit:
                return until  # the schedule keeps what is overdue; it goes out late and says so
            else:
                self._send(due, self._arrivals.take())
            sends += 1
            if sends == MAX_SENDS:
                return now
        return until if due is None else due

    def _send(self, intended_ns: int, size: Size | None = None) -> None:
        talk = self._supply.talk(size)
        if talk is not None:
            self._ask(talk, intended_ns)
        else:
            body = self._supply.next(size)
            self._carry(Reply(body, intended_ns, self._board, self, gaps=self._gaps))

    def _ask(self, talk: Talk, intended_ns: int) -> None:
        reply = Reply(
            talk.body(), intended_ns, self._board, self, talk.turn, keep=True, gaps=self._gaps
        )
        self._talks[reply] = talk
        self._carry(reply)

    def _carry(self, reply: Reply) -> None:
        self._flying[reply] = self._now() + self._timeout_ns
        self._waiting[reply] = None
        self._transport.send(reply)

    def _think(self, talk: Talk) -> None:
        """The user of a conversation reads the answer and thinks; its next turn is due then."""
        if self._kept + talk.size > MAX_KEPT:
            self._board.cells[Cell.UNFINISHED] += 1
            return
        self._kept += talk.size
        self._serial += 1
        due = self._now() + self._supply.pause_ns()
        heapq.heappush(self._thinking, (due, self._serial, talk))

    def _go_on(self, now: int, until: int, most: int) -> int:
        """Conversations whose users have thought ask their next turn, up to ``most`` in flight.

        In the closed loop a conversation is a stream: one too many after the level sank ends here.
        In the open loop its turn goes out late, or is given up, as any request that is due.
        """
        course = self._course
        closed = course is not None and course.plan.loop is Loop.CLOSED
        for _ in range(MAX_SENDS):
            if not self._thinking or self._thinking[0][0] > now:
                break
            due = self._thinking[0][0]
            over = len(self._flying) >= most
            if over and not closed and now - due <= self._timeout_ns:
                return until
            _, _, talk = heapq.heappop(self._thinking)
            self._kept -= talk.size
            if not over:
                self._ask(talk, due)
            elif closed:
                self._board.cells[Cell.UNFINISHED] += 1
            else:
                self._never_sent(due, f"{most} requests were in flight", turn=talk.turn)
        return min(until, self._thinking[0][0]) if self._thinking else until

    def _settle_overdue(self, course: Course) -> None:
        """A new course forgets the schedule, but not what was due by it and has not been sent."""
        if self._arrivals is None:
            return
        now = self._now()
        if not course.cut:
            self._send_due(now, now)
        words = "the load was stopped" if course.stopped else "the load changed"
        for _ in range(MAX_OVERDUE):
            due = self._arrivals.next_due(now)
            if due is None:
                return
            self._arrivals.take()
            self._never_sent(due, words, cut=True)

    def _never_sent(self, intended_ns: int, why: str, cut: bool = False, turn: int = 1) -> None:
        self._board.cells[Cell.NOT_SENT] += 1
        reply = Reply(b"", intended_ns, self._board, self, turn)
        if cut:
            reply.cut(f"not sent: {why}")
        else:
            reply.fail(f"not sent: {why}")

    def _expire(self, now: int) -> None:
        while self._flying:
            reply, deadline = next(iter(self._flying.items()))
            if deadline > now:
                return
            reply.fail(f"{TIME_OUT} {self._timeout_ns / NS:g} s")
            self._transport.drop(reply)

    def _show(self, now: int) -> None:
        oldest = next(iter(self._waiting)).intended_ns if self._waiting else 0
        if self._arrivals is not None:
            overdue = self._arrivals.next_due(now)
            if overdue is not None and (not oldest or overdue < oldest):
                oldest = overdue
        if self._thinking and self._thinking[0][0] <= now:
            oldest = min(oldest or now, self._thinking[0][0])
        cells = self._board.cells
        cells[Cell.OLDEST] = oldest
        cells[Cell.IN_FLIGHT] = len(self._flying)
        cells[Cell.EARLIEST] = next(iter(self._flying)).intended_ns if self._flying else 0
        cells[Cell.WAITING] = len(self._waiting)
        cells[Cell.THINKING] = len(self._thinking)
