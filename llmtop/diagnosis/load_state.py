"""The state of an engine under its load: headroom, near knee, saturated, overloaded, hung. Pure.

Input: numbers. Output: a state and its reasons. ``diagnosis.state_rules`` evaluates the newest
numbers. This module decides the state: it becomes worse at once, and better only after the numbers
were better for a while and no number became worse meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from llmtop.diagnosis.moments import Moment, mean
from llmtop.diagnosis.state_rules import KV_NEAR, RECENT_S, Level, LoadState, finding
from llmtop.diagnosis.throughput_knee import Bend, bend_of

KEPT_S = 40.0  # what the rules look back on
KEPT = 250  # moments at most: 40 s at the shortest interval
# A better state is shown after its evidence lasted this long. With a time shorter than a burst and
# its queue, the state would change with each burst.
CALM_S = 8.0
CALM_MOMENTS = 4  # and that many moments, where the interval is long
# The same with a longer queue than when the worse state was last seen: it may still grow, slowly.
LONG_CALM_S = 30.0


class LoadStates:
    """Keeps the state of one engine. Each ``note`` takes one moment and returns what is shown."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=KEPT)
        self._shown: LoadState | None = None
        self._calm: deque[tuple[float, Level]] = deque(maxlen=KEPT)  # since it could be milder
        self._queue = 0.0  # when the shown state was last what the numbers showed
        self._bend = Bend()

    def note(self, moment: Moment) -> LoadState:
        """Add the newest numbers. Returns the present state.

        A moment that is not later than the one before replaces it (the clock was stepped).
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
        """The displayed state, None before the first moment."""
        return self._shown

    @property
    def recent(self) -> Sequence[Moment]:
        """The moments in the window of the rules, oldest first."""
        return list(self._moments)

    def changed(self) -> None:
        """An option changed or the engine restarted: the knee must be found again.

        The state itself stays until the numbers differ.
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
            # As mild as all of the calm was: the rest of the way takes another one.
            worst = max(level for time, level in calm if time >= within[0].time)
            calm.clear()
            self._queue = queue
            reasons = found.reasons if worst is found.level else _easing(found)
            return LoadState(worst, reasons, limits=found.limits, growth=found.growth)
        return LoadState(before.level, _easing(found), limits=found.limits, growth=found.growth)


def _certain(found: LoadState, before: LoadState) -> bool:
    """A change that needs no patience: to and from what is not known, and out of a hang, whose
    numbers move again."""
    return Level.UNKNOWN in (found.level, before.level) or before.level is Level.HUNG


def _easing(found: LoadState) -> tuple[str, ...]:
    """The numbers of now under a word that they do not earn any more."""
    first, *rest = found.reasons
    return (f"easing: {first}", *rest)


def worsening(moments: Sequence[Moment]) -> bool:
    """Whether a harmful number rose within these moments: the later half is compared with the
    earlier one. These count: the queue, preemptions, the KV cache where it is nearly full, and the
    wait for a first token.
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
