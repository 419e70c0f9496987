"""Keeps the displayed state of an engine: headroom, near knee, saturated, overloaded, hung. Pure.

``diagnosis.state_rules`` evaluates the newest numbers. This module adds hysteresis. The displayed
state becomes worse at once. It becomes better only after the numbers were better for some time and
no number became worse during it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from llmtop.diagnosis.moments import Moment, mean
from llmtop.diagnosis.state_rules import KV_NEAR, RECENT_S, Level, LoadState, finding
from llmtop.diagnosis.throughput_knee import Bend, bend_of

KEPT_S = 40.0  # the period that the rules use
KEPT = 250  # moments at most: 40 s at the shortest interval
# A better state is shown after its evidence lasted this long. It is longer than a burst and its
# queue, so that the state does not change with each burst.
CALM_S = 8.0
CALM_MOMENTS = 4  # and after at least so many moments, for a long interval
# The same when the queue is longer than when the worse state was last confirmed. Such a queue may
# still grow slowly.
LONG_CALM_S = 30.0


class LoadStates:
    """Keeps the displayed state of one engine. ``note`` adds a moment and returns the state."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=KEPT)
        self._shown: LoadState | None = None
        self._calm: deque[tuple[float, Level]] = deque(maxlen=KEPT)  # since the numbers are better
        self._queue = 0.0  # its length when the numbers last confirmed the shown state
        self._bend = Bend()

    def note(self, moment: Moment) -> LoadState:
        """Add the newest numbers. Returns the displayed state.

        If the clock was set back, moments that are not earlier than the new one are removed.
        """
        moments = self._moments
        while moments and moments[-1].time >= moment.time:
            moments.pop()
        moments.append(moment)
        while moments[0].time < moment.time - KEPT_S:
            moments.popleft()
        self._bend = bend_of(list(moments), self._bend)
        found = finding(list(moments), self._bend)
        self._shown = self._decide(found, moment.time)
        return self._shown

    @property
    def shown(self) -> LoadState | None:
        """The displayed state; None before the first moment."""
        return self._shown

    @property
    def recent(self) -> Sequence[Moment]:
        """The moments that the rules use, oldest first."""
        return list(self._moments)

    def changed(self) -> None:
        """Forget the knee, because an option changed or the engine restarted.

        The displayed state stays until the numbers change.
        """
        self._bend = Bend()

    def _decide(self, found: LoadState, now: float) -> LoadState:
        before = self._shown
        queue = mean([m.waiting for m in self._moments if m.time > now - RECENT_S]) or 0.0
        if before is None or found.level >= before.level or found.idle or _certain(found, before):
            self._calm.clear()
            self._queue = queue
            return found
        calm_s = CALM_S if queue <= self._queue + 0.5 else LONG_CALM_S
        calm = self._calm
        while calm and calm[-1][0] >= now:
            calm.pop()
        calm.append((now, found.level))
        while len(calm) > CALM_MOMENTS and calm[1][0] <= now - LONG_CALM_S:
            calm.popleft()
        lasting = now - calm[0][0] >= calm_s and len(calm) >= CALM_MOMENTS
        within = (
            [m for m in self._moments if m.time >= min(now - calm_s, calm[-CALM_MOMENTS][0])]
            if lasting
            else []
        )
        if lasting and not worsening(within):
            # The new state is the worst one in the period. A still better one needs a new period.
            worst = max(level for time, level in calm if time >= within[0].time)
            calm.clear()
            self._queue = queue
            reasons = found.reasons if worst is found.level else _easing(found)
            return LoadState(worst, reasons, limits=found.limits, growth=found.growth)
        return LoadState(before.level, _easing(found), limits=found.limits, growth=found.growth)


def _certain(found: LoadState, before: LoadState) -> bool:
    """Whether a better state is shown at once: from or to unknown, and after a hang, because the
    numbers change again."""
    return Level.UNKNOWN in (found.level, before.level) or before.level is Level.HUNG


def _easing(found: LoadState) -> tuple[str, ...]:
    """The reasons for a state that is still shown although the newest numbers are better."""
    first, *rest = found.reasons
    return (f"easing: {first}", *rest)


def worsening(moments: Sequence[Moment]) -> bool:
    """Whether a harmful number is higher in the later half of these moments than in the earlier.

    The harmful numbers are the queue, the preemptions, the usage of a nearly full KV cache, and the
    TTFT.
    """
    middle = len(moments) // 2
    early, late = moments[:middle], moments[middle:]

    def rose(value: Callable[[Moment], float | None], least: float = 0.0) -> bool:
        before, after = mean([value(m) for m in early]), mean([value(m) for m in late])
        return before is not None and after is not None and after >= least and after > before

    return (
        rose(lambda m: m.waiting)
        or rose(lambda m: m.preemptions_per_min)
        or rose(lambda m: m.kv_usage, KV_NEAR)
        or rose(lambda m: m.ttft)
    )
