"""The moments of an engine: the numbers by which its state is judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct


class Moment(Struct, frozen=True):
    """One reading of an engine; None: unknown.

    time: unix seconds. cap: the batch limit in force. kv_usage: 0..1. preemptions_per_min: over
    the sample's own window. ttft, oldest_wait: seconds. ttft_is: the client's "p95", else the
    engine's "mean", the one figure that its buckets give exactly. unchanged_s: how long no number
    has moved although requests run. hung: that is longer than a step takes (engines.conditions).
    marginal: share of a step's time that grows with the load, 0..1 (``step_fit``).
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
    def asked(self) -> float | None:
        """Requests in the engine, running or waiting."""
        return None if self.running is None else self.running + (self.waiting or 0.0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known, None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def newest(values: Iterable[float | None]) -> float | None:
    """The last one that is known."""
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def median(values: Iterable[float | None]) -> float | None:
    """The median of what is known, None of fewer than five."""
    known = sorted(value for value in values if value is not None)
    if len(known) < 5:
        return None
    half = len(known) // 2
    return known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2
