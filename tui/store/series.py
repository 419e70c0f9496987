"""One series of a chart: every point of the last minutes, and aggregates of one day."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol

from llmtop.analysis.thinning import Stretch, Thinner

BRIEF = 120  # points kept without charts
CAPACITY = 1200  # points kept of each series: 20 minutes at a beat of one second
DAY = {10: 4320, 60: 1440}  # aggregates kept, by length in seconds: twelve hours and a day


class Timed(Protocol):
    """Points over time, as a chart reads them.

    span_s: seconds that one point covers; 0: a single moment. rewritten: how often points were
    replaced; a reader that caches points must then read all again.
    """

    rewritten: int
    span_s: float

    @property
    def oldest(self) -> float | None:
        """The time of the oldest point, unix seconds; None if there is none."""

    @property
    def newest(self) -> float | None:
        """The time of the newest point, unix seconds; None if there is none."""

    def since(self, time: float) -> list[tuple[float, float | None]]:
        """The points at or after ``time``, oldest first."""


class Stretches:
    """A ring of the lowest, mean and highest value of each interval of ``span_s`` seconds."""

    def __init__(self, span_s: int, capacity: int) -> None:
        self.span_s: float = span_s
        self.rewritten = 0
        self._capacity = capacity
        self._thinner = Thinner(span_s)
        self._times = array("d")
        self._low, self._mean, self._high = array("d"), array("d"), array("d")

    def add(self, time: float, value: float | None) -> None:
        """Add a point; if it completes an interval, store the interval."""
        ended = self._thinner.add(time, value)
        if ended is None or (self._times and ended.time <= self._times[-1]):
            return  # no interval is complete, or the clock was stepped back
        if len(self._times) == self._capacity:
            for column in (self._times, self._low, self._mean, self._high):
                del column[0]
        self._times.append(ended.time)
        self._low.append(ended.low)
        self._mean.append(ended.mean)
        self._high.append(ended.high)

    def begin_with(self, columns: Sequence[array[float]]) -> None:
        """Insert older intervals before the present ones. columns: times, low, mean, high."""
        end = bisect_left(columns[0], self._times[0]) if self._times else len(columns[0])
        first = max(0, end - self._capacity + len(self._times))
        own = (self._times, self._low, self._mean, self._high)
        made = [column[first:end] + mine for column, mine in zip(columns, own, strict=True)]
        self._times, self._low, self._mean, self._high = made
        self.rewritten += 1

    @property
    def oldest(self) -> float | None:
        """The start of the oldest interval, unix seconds; None if there is none."""
        return self._times[0] if self._times else None

    @property
    def newest(self) -> float | None:
        """The start of the newest interval, unix seconds; None if there is none."""
        return self._times[-1] if self._times else None

    def since(self, time: float) -> list[tuple[float, float | None]]:
        """The means of the intervals that begin at or after ``time``."""
        first = bisect_left(self._times, time)
        return list(zip(self._times[first:], map(known, self._mean[first:]), strict=True))

    def within(self, start: float, end: float) -> list[Stretch]:
        """The intervals that begin from ``start`` until before ``end``."""
        first, last = bisect_left(self._times, start), bisect_left(self._times, end)
        return [
            Stretch(
                self._times[at], self._low[at], self._mean[at], self._high[at], int(self.span_s)
            )
            for at in range(first, last)
            if not math.isnan(self._mean[at])
        ]


class Series:
    """A ring of (unix seconds, value); a value of None is a gap. day: also keep a day's aggregates.

    Arrays take 16 bytes a point; a tuple of two floats takes up to 112.
    """

    span_s = 0.0

    def __init__(self, capacity: int = CAPACITY, *, day: bool = True) -> None:
        self._capacity = capacity
        self._times = array("d")  # strictly ascending
        self._values = array("d")  # NaN: a gap
        self.rewritten = 0
        kept = DAY if day else {}
        self._day = tuple(Stretches(span_s, most) for span_s, most in kept.items())

    def append(self, time: float, value: float | None) -> None:
        """Add a point. Points that are not older are removed: the clock was stepped back."""
        while self._times and self._times[-1] >= time:
            self._times.pop()
            self._values.pop()
            self.rewritten += 1
        if len(self._times) == self._capacity:
            del self._times[0], self._values[0]  # moves 10 KiB, which takes a microsecond
        self._times.append(time)
        self._values.append(math.nan if value is None else value)
        for stretches in self._day:
            stretches.add(time, value)

    def begin_with(self, times: array[float], values: array[float]) -> None:
        """Insert older points before the present ones.

        If there are no present points, a gap follows, because the last point is not current.
        """
        end = bisect_left(times, self._times[0]) if self._times else len(times)
        first = max(0, end - self._capacity + len(self._times) + 1)
        older, newer = times[first:end], self._times
        held = values[first:end]
        if older and not newer:
            older.append(older[-1] + 0.001)
            held.append(math.nan)
        self._times, self._values = older + newer, held + self._values
        self.rewritten += 1

    def begin_day_with(self, span_s: int, columns: Sequence[array[float]]) -> None:
        """Insert older intervals of ``span_s`` seconds. columns: times, low, mean, high."""
        for stretches in self._day:
            if stretches.span_s == span_s:
                stretches.begin_with(columns)

    @property
    def last(self) -> float | None:
        """The newest value; None if there is none or it is a gap."""
        return known(self._values[-1]) if self._values else None

    @property
    def oldest(self) -> float | None:
        """The time of the oldest point, unix seconds; None if there is none."""
        return self._times[0] if self._times else None

    @property
    def newest(self) -> float | None:
        """The time of the newest point, unix seconds; None if there is none."""
        return self._times[-1] if self._times else None

    def since(self, time: float) -> list[tuple[float, float | None]]:
        """The points at or after ``time``, oldest first."""
        first = bisect_left(self._times, time)
        return list(zip(self._times[first:], map(known, self._values[first:]), strict=True))

    def covering(self, start: float) -> Timed:
        """The finest resolution that reaches back to ``start``; if none does, the longest one."""
        tiers: tuple[Timed, ...] = (self, *self._day)
        reached = [one.oldest for one in tiers if one.oldest is not None]
        # An interval starts before its first point, so it seems older than it is.
        enough = max(start, min(reached, default=0.0) + max(one.span_s for one in tiers))
        for one in tiers:
            if one.oldest is not None and one.oldest <= enough:
                return one
        return self

    def summary(self, start: float, end: float) -> Stretch | None:
        """Lowest, mean and highest value from ``start`` until before ``end``; None: no value.

        ``n`` of the result is the number of points, or of seconds if intervals were used.
        """
        if self._times and self._times[0] <= start:
            first, last = bisect_left(self._times, start), bisect_left(self._times, end)
            found = [one for one in self._values[first:last] if not math.isnan(one)]
            if not found:
                return None
            return Stretch(start, min(found), sum(found) / len(found), max(found), len(found))
        for stretches in self._day:
            held = stretches.within(start // stretches.span_s * stretches.span_s, end)
            if held and (stretches.oldest or math.inf) <= start:
                mean = sum(one.mean for one in held) / len(held)
                low, high = min(one.low for one in held), max(one.high for one in held)
                return Stretch(start, low, mean, high, sum(one.n for one in held))
        return None

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[tuple[float, float | None]]:
        return iter(self.since(-math.inf))


def known(packed: float) -> float | None:
    """Unpack a value: NaN becomes None."""
    return None if math.isnan(packed) else packed
