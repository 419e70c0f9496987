"""The effect of a change: the last full window before it and the first full one after it. Pure.

A percentile cannot be split, so a window that contains the change is not used. The window before is
the newest that ended before the change. The window after is the first that began after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from llmtop.analysis.marks import Mark
from llmtop.engines.core.samples import Quantile

KEPT = 400  # windows of each side: more than a minute at the shortest interval
MOST = 8  # changes whose windows are incomplete
TOGETHER_S = 1.0  # changes within this time are one change: a command may set several options
PATIENCE_S = 60.0  # after a change; then a missing window is no longer awaited
QUIET_S = 5.0  # a client without figures for so long has ended
FULL_S = 6.5  # seconds of a full window, nominally 10: at some intervals its readings are younger
SAME = 0.02  # load levels that differ by at most this share are equal


class Figures(Struct, frozen=True):
    """The measurements of one window of ``window_s`` seconds that ended at ``time``.

    Times are unix seconds. n: observations of the percentile. asked: the requested level of the
    load at the end, None: not known. ttft_mean: exact mean in seconds, for percentiles that are
    only known as a range.
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
        """The time at which the window began."""
        return self.time - self.window_s

    @property
    def idle(self) -> bool:
        """Whether no token was generated in the window."""
        return not self.n and not self.tokens_per_s


class Effect(Struct, frozen=True):
    """A change with the windows before and after it. by: who measured, "client" or "server".

    missing: why there are no windows to compare, "" if there are. levels: the lowest and the
    highest requested level of our load meanwhile; None if it was constant or there was no load of
    ours. disturbed: another change happened in one of the windows.
    """

    label: str
    by: str = ""
    before: Figures | None = None
    after: Figures | None = None
    missing: str = ""
    levels: tuple[float, float] | None = None
    load_started_or_stopped: bool = False
    disturbed: bool = False

    @property
    def load_differs(self) -> bool:
        """Whether our load had different levels in the two windows."""
        before = self.before.asked if self.before is not None else None
        after = self.after.asked if self.after is not None else None
        if before is None or after is None:
            return False
        return abs(before - after) > SAME * max(before, after)


class _Pending(Struct):
    """A change whose windows are incomplete."""

    since: float  # end of the time before the change
    applied: float  # start of the time after the change
    labels: list[str] = field(default_factory=list)


class Effects:
    """Computes the effects of the changes of one engine. Returns each effect once.

    No figures are added while the engine is down, so those from before a restart are kept until it
    is ready again.
    """

    def __init__(self) -> None:
        self._windows: dict[str, deque[Figures]] = {
            side: deque(maxlen=KEPT) for side in ("client", "server")
        }
        self._client_at: float | None = None  # time of the client's last figures
        self._asked: deque[tuple[float, float]] = deque(maxlen=KEPT)  # (time, level of the load)
        self._pending: deque[_Pending] = deque(maxlen=MOST)
        self._changes: deque[tuple[float, float]] = deque(maxlen=50)
        self._last: Mark | None = None

    def add(self, side: str, figures: Figures) -> None:
        """Add a window that the client ("client") or the engine ("server") measured.

        Short windows are ignored: the first one of a new load has 0 s.
        """
        if side == "client":
            self._client_at = figures.time
            if figures.asked is not None:
                self._asked.append((figures.time, figures.asked))
        if figures.window_s < FULL_S:
            return
        windows = self._windows[side]
        # The same window again, or the clock was set back.
        while windows and windows[-1].time >= figures.time:
            windows.pop()
        windows.append(figures)

    def add_marks(self, marks: Sequence[Mark]) -> None:
        """Add the changes among ``marks`` that are new. marks: all marks of the engine."""
        fresh: list[Mark] = []
        for mark in reversed(marks):
            if mark is self._last:
                break
            fresh.append(mark)
        for mark in reversed(fresh):
            if mark.load:
                continue  # the levels in the figures show it
            since = mark.time if mark.since is None else mark.since
            self._changes.append((since, mark.time))
            if not mark.effect:
                continue
            last = self._pending[-1] if self._pending else None
            if last is not None and abs(mark.time - last.applied) <= TOGETHER_S:
                last.since, last.applied = min(last.since, since), max(last.applied, mark.time)
                last.labels.append(mark.label)
            else:
                self._pending.append(_Pending(since, mark.time, [mark.label]))
        if fresh:
            self._last = fresh[0]

    def due(self, now: float) -> list[Effect]:
        """The effects that have become known since the last call. now: unix seconds."""
        out: list[Effect] = []
        for pending in list(self._pending):
            effect = self._effect(pending, now)
            if effect is not None:
                self._pending.remove(pending)
                out.append(effect)
        return out

    def _effect(self, pending: _Pending, now: float) -> Effect | None:
        """The effect of a change; None while its windows are incomplete."""
        label = ", ".join(pending.labels)
        late = now - pending.applied > PATIENCE_S
        found: dict[str, tuple[Figures, Figures]] = {}
        for side, windows in self._windows.items():
            before = next((f for f in reversed(windows) if f.time <= pending.since), None)
            # Old figures of a client are those of an earlier load. Those of an engine that was down
            # are used.
            if before is None or (side == "client" and pending.since - before.time > QUIET_S):
                continue
            after = next((f for f in windows if f.start >= pending.applied), None)
            if after is None:
                active = self._client_at is not None and now - self._client_at <= QUIET_S
                if side == "client" and not late and active:
                    return None  # the window is not full yet
                continue
            found[side] = before, after
        side = "client" if "client" in found else "server"
        if side not in found:
            if not late:
                return None
            return Effect(label, missing="no full window was measured before and after it")
        before, after = found[side]
        if before.idle and after.idle:
            return Effect(label, missing="nothing ran before and after it")
        return Effect(
            label,
            side,
            before,
            after,
            levels=self._levels(before.start, after.time),
            load_started_or_stopped=side == "server"
            and self._client_within(before.start, after.time),
            disturbed=self._disturbed(pending, before.start, after.time),
        )

    def _levels(self, start: float, end: float) -> tuple[float, float] | None:
        asked = [level for time, level in self._asked if start <= time <= end]
        if not asked or max(asked) - min(asked) <= SAME * max(asked):
            return None
        return min(asked), max(asked)

    def _client_within(self, start: float, end: float) -> bool:
        return any(start <= time <= end for time, _ in self._asked)

    def _disturbed(self, pending: _Pending, start: float, end: float) -> bool:
        """Whether another change happened. Changes within this one belong to it."""
        return any(
            start <= at <= end
            and not pending.since - TOGETHER_S <= at <= pending.applied + TOGETHER_S
            for _, at in self._changes
        )


def mean_rate(
    points: Iterable[tuple[float, float | None]], end: float, window_s: float, rate_s: float
) -> float | None:
    """The mean of rates over a window. Each rate is over the ``rate_s`` seconds before its time.

    points: (time, rate). end: of the window, unix seconds. A rate that includes time before the
    window is left out. None without a rate.
    """
    known = [
        value
        for time, value in points
        if end - window_s + rate_s <= time <= end and value is not None
    ]
    return sum(known) / len(known) if known else None
