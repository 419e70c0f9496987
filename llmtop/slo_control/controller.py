"""The controller of ``hold``: decides which limits an engine should have now, and why.

Below the knee it does nothing. Above the knee it sets three limits, each against one cause:

- The token budget bounds the time of a step. So a prompt delays no token for longer than the TPOT
  limit.
- The batch limit bounds the mean gap between two tokens. It is computed from the cost of a request
  (``step_costs``), not from the gap measured in the last second. That gap is low while a batch
  drains and high while it fills, and a controller that follows it ends at the smallest batch.
- The queue limit bounds the wait. A request that cannot be served in time is refused at once.

The controller uses TTFT and TPOT. A controller that used TPOT alone starved the prefills: TTFT rose
from 0.34 to 2.6 s (measured on an H200).
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
    TargetLimits,
    limits_of,
)
from llmtop.slo_control.pressure import Pressure

# A time scale is ``Goal.time_scale_s`` seconds.
ENGAGE_WAIT = 0.35  # expected wait, as a share of the TTFT limit, above which limits are set
ENGAGE_TPOT = 0.85  # measured gap, as a share of the TPOT limit, above which limits are set
LEAST_SHARE, MOST_SHARE = 0.15, 0.80  # bounds of the share of the TTFT limit spent in the queue
EARLY_TTFT = 0.50  # TTFT p95, as a share of its limit, below which the queue may become longer
RELEASE = 3.0  # time scales of low load, after which the operator's values are restored
CALM = 0.90  # arrivals, as a share of the requests that can be served in time, for low load
EVERY = 1.0  # time scales between two changes
DEAD_BAND = 0.15  # relative change of a limit below which it is not set
LARGE = 0.40  # relative changes above it are made together, others one at a time
CONFIRM = 0.3  # time scales for which a few requests must wait before limits are set
FEW_WAIT = 8  # fewer waiting requests than this are few


class Decision(Struct, frozen=True):
    """The limits to set, and the reason. restored: they are the operator's own values."""

    held: LimitValues
    why: str
    restored: bool = False


class Controller:
    """Decides which limits to set. Call ``decide`` at each sample.

    goal: the SLO. own: the operator's values. allowed: the range for each limit. held: the limits
    now in force. engaged: whether they are the controller's, not the operator's.
    """

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
        """The change to make now; None for none.

        ranks: the pressure of each data-parallel rank. All ranks of an engine have the same limits,
        so each limit is the lowest that a rank needs.
        """
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
        """Seconds for which TPOT or TTFT has been above its limit. now: on the clock of the ranks'
        ``time``."""
        return 0.0 if self._failing_since is None else now - self._failing_since

    def forget(self, own: LimitValues) -> None:
        """Start again with the operator's values ``own``, which are in force now."""
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
        # A few requests that wait for one long step are no overload.
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

    def _wanted(self, ranks: Sequence[Pressure]) -> TargetLimits:
        each = [
            limits_of(seen, self._goal, self._own, self.held, self._range, self._share)
            for seen in ranks
        ]
        return TargetLimits(
            min(one.batch for one in each),
            min(one.queue for one in each),
            min(one.budget for one in each),
        )

    def _chosen(self, wanted: TargetLimits) -> LimitValues:
        """The limits in force with all large changes, or with the largest one if none is large.
        Changes within the dead band are not made."""
        held, new = structs.asdict(self.held), structs.asdict(_rounded(wanted))
        changes = {
            name: abs(value - held[name]) / max(held[name], 1)
            for name, value in new.items()
            if abs(value - held[name]) >= max(1.0, DEAD_BAND * held[name])
        }
        if not changes:
            return self.held
        largest = max(changes, key=lambda name: changes[name])
        chosen = {
            name: new[name] for name, share in changes.items() if share > LARGE or name == largest
        }
        return structs.replace(self.held, **chosen)

    def _learn(self, ranks: Sequence[Pressure]) -> None:
        """Adapt the share of the TTFT limit that a request may spend in the queue to the measured
        TTFT."""
        limit, ttft = self._goal.ttft_s, ranks[0].ttft_s
        if limit is None or ttft is None:
            return
        if ttft > LATE_TTFT * limit:
            self._share = max(LEAST_SHARE, self._share * 0.85)
        elif ttft < EARLY_TTFT * limit and any(seen.refused_per_s > 0 for seen in ranks):
            self._share = min(MOST_SHARE, self._share * 1.05)

    def _calm(self, ranks: Sequence[Pressure], now: float) -> bool:
        if not all(map(self._has_low_load, ranks)):
            self._calm_since = None
            return False
        if self._calm_since is None:
            self._calm_since = now
        return now - self._calm_since >= RELEASE * self._goal.time_scale_s

    def _has_low_load(self, seen: Pressure) -> bool:
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


def _rounded(wanted: TargetLimits) -> LimitValues:
    return LimitValues(round(wanted.batch), round(wanted.queue), round(wanted.budget))


def _worst(ranks: Sequence[Pressure]) -> Pressure:
    """The rank in which a new request waits longest."""
    return max(ranks, key=lambda seen: (seen.wait_s, seen.steady_tpot_s or 0.0))


def _words(seen: Pressure) -> str:
    parts = [f"rank {seen.rank}"] if seen.rank else []
    if seen.steady_tpot_s is not None:
        parts.append(f"a token takes {seen.steady_tpot_s * 1e3:.0f} ms")
    parts.append(f"{seen.first_tokens_per_s:.0f} of {seen.arrivals_per_s:.0f} requests/s served")
    if seen.ttft_s is not None:
        parts.append(f"TTFT p95 {seen.ttft_s:.2f} s")
    return ", ".join(parts)
