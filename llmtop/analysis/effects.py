"""What a change did: the last full window before it beside the first full one after it. Pure.

A percentile cannot be split, so no window that reaches over the change says anything about it: the
one before is the newest that had ended by then, the one after is the first that began after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from llmtop.analysis.marks import Mark
from llmtop.engines.core.samples import Quantile

KEPT = 400  # moments of each side: over a minute at the shortest interval
MOST = 8  # changes that are waited for at once
TOGETHER_S = 1.0  # changes so close together are one: a command may set several options
PATIENCE_S = 60.0  # numbers that do not come in this time after a change do not come
QUIET_S = 5.0  # a client that has said nothing for so long has ended
FULL_S = 6.5  # of ten: at some intervals no reading is nearer to ten seconds old
SAME = 0.02  # levels within this share of each other are one level


class Figures(Struct, frozen=True):
    """One window of ``window_s`` seconds that ended at ``time``, on the screen's clock.

    n: first tokens that the percentile is of. asked: the load's level at its end, None where
    nothing is known of it. ttft_mean: the exact one, where the percentile may be a range.
    """

    time: float
    window_s: float
    ttft_p95: Quantile | None
    tokens_per_s: float | None
    n: int
    asked: float | None = None
    ttft_mean: float | None = None

    @property
    def start(self) -> float:
        """Where the window began."""
        return self.time - self.window_s

    @property
    def silent(self) -> bool:
        """Whether nothing was done in it."""
        return not self.n and not self.tokens_per_s


class Effect(Struct, frozen=True):
    """A change with what was before and after it; by: whose figures, "client" or "server".

    missing: why there is nothing to lay side by side, "" when there is. levels: the lowest and the
    highest that the load asked for meanwhile, None while it stayed or was not ours. disturbed:
    something else was changed in one of the windows.
    """

    label: str
    by: str = ""
    before: Figures | None = None
    after: Figures | None = None
    missing: str = ""
    levels: tuple[float, float] | None = None
    load_came_or_went: bool = False
    disturbed: bool = False

    @property
    def differ(self) -> bool:
        """Whether the load of the two windows is not the same, as far as it is ours."""
        before = self.before.asked if self.before is not None else None
        after = self.after.asked if self.after is not None else None
        if before is None or after is None:
            return False
        return abs(before - after) > SAME * max(before, after)


class _Awaited(Struct):
    since: float  # until here it was as before
    applied: float  # from here on it is as after
    labels: list[str] = field(default_factory=list)


class Effects:
    """Watches one engine's figures and its marks; hands out each effect once, when it is known.

    Figures are noted as they are measured; while an engine is down nothing is noted, so what was
    before a restart stays there until it is up again.
    """

    def __init__(self) -> None:
        self._notes: dict[str, deque[Figures]] = {
            side: deque(maxlen=KEPT) for side in ("client", "server")
        }
        self._heard: float | None = None  # when the client last said something
        self._asked: deque[tuple[float, float]] = deque(maxlen=KEPT)  # the load's level over time
        self._awaited: deque[_Awaited] = deque(maxlen=MOST)
        self._changes: deque[tuple[float, float]] = deque(maxlen=50)
        self._last: Mark | None = None

    def note(self, side: str, figures: Figures) -> None:
        """Take in what the client ("client") or the engine ("server") measured.

        A window that is not full yet says nothing: a load that has just begun has one of 0 s.
        """
        if side == "client":
            self._heard = figures.time
            if figures.asked is not None:
                self._asked.append((figures.time, figures.asked))
        if figures.window_s < FULL_S:
            return
        notes = self._notes[side]
        while notes and notes[-1].time >= figures.time:  # the same again, or the clock went back
            notes.pop()
        notes.append(figures)

    def see(self, marks: Sequence[Mark]) -> None:
        """Look through the newest marks for changes that were not seen before."""
        fresh: list[Mark] = []
        for mark in reversed(marks):
            if mark is self._last:
                break
            fresh.append(mark)
        for mark in reversed(fresh):
            if mark.load:
                continue  # the levels themselves show it
            since = mark.time if mark.since is None else mark.since
            self._changes.append((since, mark.time))
            if not mark.effect:
                continue
            last = self._awaited[-1] if self._awaited else None
            if last is not None and abs(mark.time - last.applied) <= TOGETHER_S:
                last.since, last.applied = min(last.since, since), max(last.applied, mark.time)
                last.labels.append(mark.label)
            else:
                self._awaited.append(_Awaited(since, mark.time, [mark.label]))
        if fresh:
            self._last = fresh[0]

    def due(self, now: float) -> list[Effect]:
        """The effects that have become known since the last call."""
        out: list[Effect] = []
        for awaited in list(self._awaited):
            effect = self._of(awaited, now)
            if effect is not None:
                self._awaited.remove(awaited)
                out.append(effect)
        return out

    def _of(self, awaited: _Awaited, now: float) -> Effect | None:
        label = ", ".join(awaited.labels)
        late = now - awaited.applied > PATIENCE_S
        found: dict[str, tuple[Figures, Figures]] = {}
        for side, notes in self._notes.items():
            before = next((f for f in reversed(notes) if f.time <= awaited.since), None)
            # A client of long ago is none; an engine's last word before it went down is kept.
            if before is None or (side == "client" and awaited.since - before.time > QUIET_S):
                continue
            after = next((f for f in notes if f.start >= awaited.applied), None)
            if after is None:
                speaks = self._heard is not None and now - self._heard <= QUIET_S
                if side == "client" and not late and speaks:
                    return None  # the window is not full yet
                continue
            found[side] = before, after
        side = "client" if "client" in found else "server"
        if side not in found:
            if not late:
                return None
            return Effect(label, missing="no full window was measured before and after it")
        before, after = found[side]
        if before.silent and after.silent:
            return Effect(label, missing="nothing ran before and after it")
        return Effect(
            label,
            side,
            before,
            after,
            levels=self._levels(before.start, after.time),
            load_came_or_went=side == "server" and self._client_within(before.start, after.time),
            disturbed=self._disturbed(awaited, before.start, after.time),
        )

    def _levels(self, start: float, end: float) -> tuple[float, float] | None:
        asked = [level for time, level in self._asked if start <= time <= end]
        if not asked or max(asked) - min(asked) <= SAME * max(asked):
            return None
        return min(asked), max(asked)

    def _client_within(self, start: float, end: float) -> bool:
        return any(start <= time <= end for time, _ in self._asked)

    def _disturbed(self, awaited: _Awaited, start: float, end: float) -> bool:
        """Whether something else happened; what lies in the change itself belongs to it."""
        return any(
            start <= at <= end
            and not awaited.since - TOGETHER_S <= at <= awaited.applied + TOGETHER_S
            for _, at in self._changes
        )


def mean_rate(
    points: Iterable[tuple[float, float | None]], end: float, window_s: float, rate_s: float
) -> float | None:
    """The mean over a window of rates that look back ``rate_s`` seconds each.

    Rates that reach back beyond the window's start are left out.
    """
    known = [
        value
        for time, value in points
        if end - window_s + rate_s <= time <= end and value is not None
    ]
    return sum(known) / len(known) if known else None
