"""A plan in progress: its shape, the position in it, and what the operator has changed."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.arrivals import MAX_BURSTINESS, MIN_BURSTINESS
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan
from llmtop.loadgen.workload.shape import MAX_LEVEL, Shape, parse
from llmtop.loadgen.workload.trace import Size
from llmtop.values import replace

STEP = 1.25  # more and less: ten presses are a factor of nine


read_shape = lru_cache(maxsize=16)(parse)


def check(plan: Plan) -> Shape:
    """The plan's shape, read again. Raises UsageError for a plan that cannot be followed."""
    shape = parse(plan.shape)
    if shape.is_recorded and plan.loop is Loop.CLOSED:
        raise UsageError(
            "a trace is a list of arrivals, so it needs the open loop",
            "add --open, or remove the trace from the shape",
        )
    if plan.arrival is Arrival.GAMMA and not MIN_BURSTINESS <= plan.burstiness <= MAX_BURSTINESS:
        raise UsageError(
            f"burstiness is {MIN_BURSTINESS:g} to infinity, not {plan.burstiness:g}",
            "1 is Poisson; below 1 requests come in bursts, above 1 more evenly",
        )
    return shape


class Schedule(Struct, frozen=True):
    """What is asked at every moment, as a pure function of time; every change makes a new one.

    All moments in monotonic nanoseconds. start_ns: where the shape's time is 0; it moves while the
    shape stands still under a hold or a burst. since_ns, number: when this schedule was made, and
    how many came before it. held: the level that replaces the shape until ``resume``.
    """

    plan: Plan
    start_ns: int
    since_ns: int
    number: int = 0
    held: float | None = None
    paused_ns: int = 0
    burst_level: float = 0.0
    burst_until_ns: int = 0
    stopped: bool = False
    cut: bool = False

    @property
    def shape(self) -> Shape:
        """The plan's shape, parsed."""
        return read_shape(self.plan.shape)

    @property
    def begins(self) -> bool:
        """Whether the plan begins with this schedule; else it continues at another level."""
        return self.since_ns == self.start_ns

    @property
    def arrivals_seed(self) -> str:
        """What decides the moments of the arrivals, counted from ``since_ns``."""
        if self.plan.arrivals is not None:
            return f"arrivals {self.plan.arrivals}"
        return f"arrivals {self.plan.seed} {self.number}"

    def level(self, now_ns: int) -> float:
        """Streams, or requests a second, asked for at ``now_ns``."""
        if self.stopped or now_ns < self.since_ns:
            return 0.0
        if now_ns < self.burst_until_ns:
            return self.burst_level
        if self.held is not None:
            return self.held
        return self.shape.level((now_ns - self.start_ns) / NS)

    def flow(self, now_ns: int) -> float:
        """The rate that arrivals are drawn from: the level, 0 within a recorded trace."""
        if self._follows_shape(now_ns):
            return self.shape.flow((now_ns - self.start_ns) / NS)
        return self.level(now_ns)

    def recorded(self, begin_ns: int, end_ns: int) -> list[tuple[int, Size]]:
        """Recorded arrivals from one moment up to another, and how long they were."""
        begin_ns = max(begin_ns, self.burst_until_ns)
        if begin_ns >= end_ns or not self._follows_shape(begin_ns) or not self.shape.is_recorded:
            return []
        found = self.shape.recorded(begin_ns - self.start_ns, end_ns - self.start_ns)
        return [(self.start_ns + at, size) for at, size in found]

    def _follows_shape(self, now_ns: int) -> bool:
        held = self.stopped or self.held is not None or now_ns < self.burst_until_ns
        return not held and now_ns >= self.since_ns

    def running(self, now_ns: int) -> bool:
        """Whether more requests may still come: neither stopped nor at the shape's end."""
        if self.stopped:
            return False
        if now_ns < self.burst_until_ns or self.held is not None:
            return True
        return self.shape.running((now_ns - self.start_ns) / NS)

    def bursting(self, now_ns: int) -> bool:
        """Whether a burst lies on top of the level."""
        return now_ns < self.burst_until_ns

    def more(self, now_ns: int) -> Schedule:
        """A quarter more than now and at least one more, held."""
        level = self.level(now_ns)
        return self.hold_at(max(level * STEP, level + 1), now_ns)

    def less(self, now_ns: int) -> Schedule:
        """A fifth less than now and at least one less, held."""
        level = self.level(now_ns)
        return self.hold_at(min(level / STEP, level - 1), now_ns)

    def hold(self, now_ns: int) -> Schedule:
        """Freeze the present level."""
        return self.hold_at(self.level(now_ns), now_ns)

    def hold_at(self, level: float, now_ns: int) -> Schedule:
        """Hold a level; the shape's time stands still meanwhile."""
        level = min(max(level, 0.0), MAX_LEVEL)
        if self.plan.loop is Loop.CLOSED:
            level = float(int(level + 0.5))
        plain = self._without_burst(now_ns)
        paused = plain.paused_ns if plain.held is not None else now_ns
        return plain._next(now_ns, held=level, paused_ns=paused, stopped=False, cut=False)

    def resume(self, now_ns: int) -> Schedule:
        """Let the shape go on from where it was held."""
        if self.held is None:
            return self
        burst_left = max(0, self.burst_until_ns - now_ns)
        moved = self.start_ns + (now_ns - self.paused_ns) + burst_left
        return self._next(now_ns, start_ns=moved, held=None, paused_ns=0, stopped=False, cut=False)

    def burst(self, level: float, seconds: float, now_ns: int) -> Schedule:
        """Another level for some seconds; then the shape continues where it was."""
        plain = self._without_burst(now_ns)
        length = int(seconds * NS)
        start = plain.start_ns if plain.held is not None else plain.start_ns + length
        return plain._next(
            now_ns,
            start_ns=start,
            burst_level=min(max(level, 0.0), MAX_LEVEL),
            burst_until_ns=now_ns + length,
            stopped=False,
            cut=False,
        )

    def switch(self, loop: Loop, level: float, now_ns: int) -> Schedule:
        """The other kind of loop, holding a level of its own unit."""
        return replace(self, plan=replace(self.plan, loop=loop)).hold_at(level, now_ns)

    def stop(self, cut: bool, now_ns: int) -> Schedule:
        """Nothing more is sent. What is in flight finishes, or is cut."""
        return self._without_burst(now_ns)._next(
            now_ns, held=0.0, paused_ns=now_ns, stopped=True, cut=cut
        )

    def interrupt(self, now_ns: int) -> Schedule:
        """Cut what is in flight and send nothing more until ``go_on``; a hold stays a hold."""
        plain = self._without_burst(now_ns)
        paused = plain.paused_ns if plain.held is not None else now_ns
        return plain._next(now_ns, paused_ns=paused, stopped=True, cut=True)

    def go_on(self, now_ns: int) -> Schedule:
        """After ``interrupt``: the level that was held, or the shape from where it was."""
        if self.held is not None:
            return self._next(now_ns, stopped=False, cut=False)
        moved = self.start_ns + (now_ns - self.paused_ns)
        return self._next(now_ns, start_ns=moved, paused_ns=0, stopped=False, cut=False)

    def _without_burst(self, now_ns: int) -> Schedule:
        if now_ns >= self.burst_until_ns:
            return self
        left = self.burst_until_ns - now_ns
        start = self.start_ns if self.held is not None else self.start_ns - left
        return replace(self, start_ns=start, burst_until_ns=0)

    def _next(self, now_ns: int, **changes: object) -> Schedule:
        return replace(self, since_ns=now_ns, number=self.number + 1, **changes)
