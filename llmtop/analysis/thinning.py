"""Downsampling: the lowest, mean and highest value of each interval of time. Pure."""

from __future__ import annotations

import math

from msgspec import Struct


class Stretch(Struct, frozen=True):
    """One interval. time: its start, unix seconds. n: number of values; 0: a gap."""

    time: float
    low: float
    mean: float
    high: float
    n: int


class Thinner:
    """Downsamples a series to intervals of ``span_s`` seconds.

    Intervals start at multiples of ``span_s`` since 1970, so those of two processes are the same.
    """

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self._start = -math.inf
        self._n = 0
        self._sum = self._low = self._high = 0.0

    def add(self, time: float, value: float | None) -> Stretch | None:
        """Add a value. Returns the interval before it, if that has just ended."""
        ended = None
        if not self._start <= time < self._start + self.span_s:
            ended = self.take()
            self._start = time // self.span_s * self.span_s
        if value is not None:
            if self._n == 0:
                self._low = self._high = value
            elif value < self._low:
                self._low = value
            elif value > self._high:
                self._high = value
            self._n += 1
            self._sum += value
        return ended

    def take(self) -> Stretch | None:
        """The interval so far; the next value starts a new one. None before the first value."""
        if self._start == -math.inf:
            return None
        n = self._n
        mean = self._sum / n if n else math.nan
        low, high = (self._low, self._high) if n else (math.nan, math.nan)
        found = Stretch(self._start, low, mean, high, n)
        self._start, self._n, self._sum = -math.inf, 0, 0.0
        return found
