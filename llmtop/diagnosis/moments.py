"""The moments of an engine: the numbers that decide its state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct


class Moment(Struct, frozen=True):
    """The numbers of an engine at one moment. None means unknown.

    time: unix seconds. running, waiting: requests. cap: the batch limit in force. kv_usage: 0..1.
    preemptions_per_min: over the sample's own window. ttft, oldest_wait: seconds. ttft_is: the
    statistic of ttft: "p95" of the client, or else "mean" of the engine, the only figure that its
    histogram gives exactly. unchanged_s: seconds without a change of any number although requests
    run. hung: that is longer than a step can take (``engines.conditions``). marginal: the share of
    a step's time that grows with the load, 0..1 (``diagnosis.steps.fit``).
    """

    time: float
    running: float | None = None
    waiting: float | None = None
    cap: float | None = None
    kv_usage: float | None = None
    preemptions_per_min: float | None = None
    tokens_per_s: float | None = None
    ttft: float | None = None
    oldest_wait: float | None = None
    unchanged_s: float | None = None
    hung: bool = False
    ttft_is: str = "p95"
    marginal: float | None = None

    @property
    def requests(self) -> float | None:
        """Requests in the engine, running or waiting; None for unknown."""
        return None if self.running is None else self.running + (self.waiting or 0.0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def newest(values: Iterable[float | None]) -> float | None:
    """The last known value; None without any."""
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def median(values: Iterable[float | None]) -> float | None:
    """The median of the known values; None for fewer than five."""
    known = sorted(value for value in values if value is not None)
    if len(known) < 5:
        return None
    half = len(known) // 2
    return known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2
