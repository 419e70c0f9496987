"""The controller of ``hold``: which limits an engine should have now, and why.

Below the knee it does nothing. Above, three limits work together, each against one cause:

- The token budget bounds the time of a step, so a prompt delays no token for longer than the limit
  of TPOT.
- The batch limit bounds the mean gap between two tokens. It follows from what a request costs
  (``step_costs``), not from the gap of this second: that gap is low while a batch drains and high
  while it fills. A controller that follows it goes down to the smallest batch and stays there.
- The queue limit bounds the wait. What cannot be served in time is refused at once.

It looks at TTFT and TPOT: a controller that looked at the gaps alone starved the prefills, and TTFT
rose from 0.34 to 2.6 s (measured on an H200).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct, structs

from llmtop.slo_control.limits import (
    LATE_TTFT,
    TARGET_WAIT,
    Goal,
    LimitValues,
    Range,
    Wanted,
    limits_of,
)
from llmtop.slo_control.pressure import Pressure

ENGAGE_WAIT = 0.35  # of the TTFT limit, as the expected wait
ENGAGE_TPOT = 0.85  # of the TPOT limit
LEAST_SHARE, MOST_SHARE = 0.15, 0.80  # of the TTFT limit, in the queue
EARLY_TTFT = 0.50  # of the limit, as the p95: the queue may be longer
RELEASE = 3.0  # time scales of calm before the operator's values return
CALM = 0.90  # of what can be served in time, as arrivals
EVERY = 1.0  # time scales between two changes
DEAD_BAND = 0.15  # smaller changes are not worth one
LARGE = 0.40  # such changes are made together, others one at a time
CONFIRM = 0.3  # time scales for which the wait of a few requests must last before anything is set
FEW_WAIT = 8


class Decision(Struct, frozen=True):
    """The limits to be in force, and the reason. restored: they are the operator's own."""

    held: LimitValues
    why: str
    restored: bool = False


class Controller:
    """Ask ``decide`` on every beat. own: the operator's values."""

    def __init__(self, goal: Goal, own: LimitValues, allowed: Range) -> None:
        self._goal, self._own, self._range = goal, own, allowed
        self.held = own
        self.engaged = False
        self._share = TARGET_WAIT
        self._changed = -math.inf
        self._calm_since: float | None = None
        self._pressed_since: float | None = None
        self._failing_since: float | None = None

    def decide(self, ranks: Sequence[Pressure]) -> Decision | None:
        """What to change now; None: nothing. Limits are the same for all ranks of an engine, so the
        rank that needs the lowest decides."""
        self._watch(ranks)
        if not ranks:
            return None
        now = ranks[0].time
        if not self.engaged:
            return self._engage(ranks, now)
        if self._calm(ranks, now):
            self.engaged = False
            self._calm_since = None
            return self._set(self._own, "the load is below the knee again", now, restored=True)
        if now - self._changed < EVERY * self._goal.time_scale_s:
            return None
        self._learn(ranks)
        wanted = self._chosen(self._wanted(ranks))
        if wanted == self.held:
            return None
        return self._set(wanted, _words(_worst(ranks)), now)

    def failing_for(self, now: float) -> float:
        """Seconds for which TPOT or TTFT has been above its limit although all limits are set."""
        return 0.0 if self._failing_since is None else now - self._failing_since

    def forget(self, own: LimitValues) -> None:
        """The engine has its operator's values again."""
        self._own = self.held = own
        self.engaged = False
        self._calm_since = self._pressed_since = None

    def _engage(self, ranks: Sequence[Pressure], now: float) -> Decision | None:
        reasons = [(seen, why) for seen in ranks if (why := self._reason(seen))]
        if not reasons:
            self._pressed_since = None
            return None
        if self._pressed_since is None:
            self._pressed_since = now
        # One long step with a few requests behind it is no overload.
        mild = all(seen.waiting < FEW_WAIT and not self._slow(seen) for seen, _ in reasons)
        if mild and now - self._pressed_since < CONFIRM * self._goal.time_scale_s:
            return None
        self._pressed_since = None
        self.engaged = True
        self._share = TARGET_WAIT
        return self._set(_rounded(self._wanted(ranks)), reasons[0][1], now)

    def _reason(self, seen: Pressure) -> str | None:
        goal = self._goal
        where = f"rank {seen.rank}: " if seen.rank else ""
        if goal.ttft_s is not None and seen.waiting >= 2:
            wait = seen.wait_s
            if wait > ENGAGE_WAIT * goal.ttft_s:
                return (
                    f"{where}{seen.waiting:.0f} requests wait and {seen.first_tokens_per_s:.0f} a"
                    f" second are served: a new one waits {wait:.2f} s"
                )
        if self._slow(seen):
            gap = (seen.tpot_s or 0.0) * 1e3
            return f"{where}a token takes {gap:.0f} ms with {seen.running:.0f} streams"
        return None

    def _slow(self, seen: Pressure) -> bool:
        limit = self._goal.tpot_s
        return limit is not None and seen.tpot_s is not None and seen.tpot_s > ENGAGE_TPOT * limit

    def _wanted(self, ranks: Sequence[Pressure]) -> Wanted:
        each = [
            limits_of(seen, self._goal, self._own, self.held, self._range, self._share)
            for seen in ranks
        ]
        return Wanted(
            min(one.batch for one in each),
            min(one.queue for one in each),
            min(one.budget for one in each),
        )

    def _chosen(self, wanted: Wanted) -> LimitValues:
        """The changes that are worth one: large ones together, else the largest alone."""
        held, new = structs.asdict(self.held), structs.asdict(_rounded(wanted))
        off = {
            name: abs(value - held[name]) / max(held[name], 1)
            for name, value in new.items()
            if abs(value - held[name]) >= max(1.0, DEAD_BAND * held[name])
        }
        if not off:
            return self.held
        most = max(off, key=lambda name: off[name])
        chosen = {name: new[name] for name, share in off.items() if share > LARGE or name == most}
        return structs.replace(self.held, **chosen)

    def _learn(self, ranks: Sequence[Pressure]) -> None:
        """The share of the TTFT limit that may pass in the queue, by the TTFTs that followed."""
        limit, ttft = self._goal.ttft_s, ranks[0].ttft_s
        if limit is None or ttft is None:
            return
        if ttft > LATE_TTFT * limit:
            self._share = max(LEAST_SHARE, self._share * 0.85)
        elif ttft < EARLY_TTFT * limit and any(seen.refused_per_s > 0 for seen in ranks):
            self._share = min(MOST_SHARE, self._share * 1.05)

    def _calm(self, ranks: Sequence[Pressure], now: float) -> bool:
        if not all(map(self._at_ease, ranks)):
            self._calm_since = None
            return False
        if self._calm_since is None:
            self._calm_since = now
        return now - self._calm_since >= RELEASE * self._goal.time_scale_s

    def _at_ease(self, seen: Pressure) -> bool:
        held, costs = self.held, seen.costs
        if costs is not None and seen.arrivals_per_s > CALM * costs.served_per_s(held.batch_limit):
            return False
        return (
            seen.refused_per_s == 0
            and seen.waiting <= max(2.0, 0.25 * held.queue_limit)
            and seen.running < 0.85 * held.batch_limit
            and not self._slow(seen)
        )

    def _watch(self, ranks: Sequence[Pressure]) -> None:
        goal = self._goal
        broken = any(
            (goal.ttft_s is not None and seen.ttft_s is not None and seen.ttft_s > goal.ttft_s)
            or (goal.tpot_s is not None and seen.tpot_s is not None and seen.tpot_s > goal.tpot_s)
            for seen in ranks
        )
        if not broken:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = ranks[0].time

    def _set(self, held: LimitValues, why: str, now: float, *, restored: bool = False) -> Decision:
        self.held, self._changed = held, now
        return Decision(held, why, restored)


def _rounded(wanted: Wanted) -> LimitValues:
    return LimitValues(round(wanted.batch), round(wanted.queue), round(wanted.budget))


def _worst(ranks: Sequence[Pressure]) -> Pressure:
    """The rank whose new requests wait longest."""
    return max(ranks, key=lambda seen: (seen.wait_s, seen.steady_tpot_s or 0.0))


def _words(seen: Pressure) -> str:
    parts = [f"rank {seen.rank}"] if seen.rank else []
    if seen.steady_tpot_s is not None:
        parts.append(f"a token takes {seen.steady_tpot_s * 1e3:.0f} ms")
    parts.append(f"{seen.first_tokens_per_s:.0f} of {seen.arrivals_per_s:.0f} requests/s served")
    if seen.ttft_s is not None:
        parts.append(f"TTFT p95 {seen.ttft_s:.2f} s")
    return ", ".join(parts)
