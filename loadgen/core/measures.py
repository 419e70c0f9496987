"""Measures of a load, their error bounds by the client, and the verdict on each.

Plain values. ``bounds`` and ``verdict`` compute them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from llmtop.loadgen.core.results import LatencySummary

UNBOUNDED = float("inf")
NEGLIGIBLE = 1e-7  # seconds; rounding of a difference of two sums


class Measure(StrEnum):
    """A figure of an engine that a load measures."""

    TTFT = "ttft"
    ITL = "itl"
    TPOT = "tpot"
    E2E = "e2e"
    THROUGHPUT = "output_tokens_per_s"
    ATTAINMENT = "slo_attainment"


LATENCIES = (Measure.TTFT, Measure.ITL, Measure.TPOT, Measure.E2E)


class Extent(Struct, frozen=True):
    """A latency as measured, and its lower and upper bound without this client's error.

    unsure: share of its observations that are not exact. sent: its value if this client had sent
    every request on time; None: unknown.
    """

    value: LatencySummary
    low: LatencySummary
    high: LatencySummary
    unsure: float = 0.0
    sent: LatencySummary | None = None


class Sources(Struct, frozen=True, kw_only=True):
    """All sources of error in the figures of one window.

    closed: the loop. extents: of each latency, including the errors of its stamps: late sends,
    several tokens in one read, unread data that made a server wait; with user-space times also
    this process's read lag. turnaround: share of a stream's time between the end of an answer and
    the next request, closed loop. stalled: share of the time in flight in which a server may have
    waited for this client to read. lag_s: p99 from a chunk's arrival to its reading.
    late_s: p99 of the lateness of sends. attained: requests in time: lower bound, measured, upper
    bound, and their total. void: why this window did not have the requested load, "" if it had.
    stamped: times are the kernel's stamps, else this program's clock.
    """

    closed: bool = True
    extents: Mapping[Measure, Extent] = {}
    tokens_per_s: float | None = None
    window_s: float | None = None
    turnaround: float = 0.0
    stalled: float = 0.0
    lag_s: float = 0.0
    late_s: float = 0.0
    attained: tuple[int, int, int, int] | None = None
    void: str = ""
    stamped: bool = True


class Bound(Struct, frozen=True):
    """The bound of one measure. quantile: "" for a rate or a share. value: as measured, or None.

    low, high: its range without this client's error. Seconds, tokens a second, or a share.
    blur: the part of the range that the clocks and the buckets of a histogram cause.
    """

    measure: Measure
    quantile: str
    value: float | None
    low: float | None
    high: float | None
    n: int = 0
    blur: float = 0.0

    @property
    def moved(self) -> float:
        """The error that this client caused: without that of the clocks and the buckets."""
        beyond = self.error - self.blur
        return beyond if beyond > NEGLIGIBLE else 0.0

    @property
    def error(self) -> float:
        """The largest error of the value in either direction; infinite: unknown."""
        if self.value is None:
            return 0.0
        if self.low is None or self.high is None:
            return UNBOUNDED
        return max(self.value - self.low, self.high - self.value, 0.0)


NAMES = {
    Measure.TTFT: "TTFT",
    Measure.ITL: "ITL",
    Measure.TPOT: "TPOT",
    Measure.E2E: "e2e",
    Measure.THROUGHPUT: "tok/s",
    Measure.ATTAINMENT: "in time",
}


class Verdict(Struct, frozen=True):
    """The verdict on one measure, or one quantile of a latency.

    value, bound: seconds, tokens a second or a share. bound: the largest error by this client;
    None: unknown. valid: the bound is negligible. reason, remedy: for an invalid measure, as parts
    of a sentence; else "".
    """

    measure: Measure
    quantile: str
    value: float | None
    bound: float | None
    valid: bool
    reason: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        """``TTFT p99``."""
        return f"{NAMES[self.measure]} {self.quantile}".strip()

    @property
    def share(self) -> float:
        """The bound as a share of the value; infinite if one of them is unknown."""
        if self.bound is None or not self.value:
            return math.inf
        return self.bound / self.value

    @property
    def words(self) -> str:
        """``TTFT p99 can be 34.0 ms off: requests left late``."""
        return f"{self.name} {self._off}: {self.reason}"

    @property
    def brief(self) -> str:
        """``TTFT p99 +-34ms``."""
        if self.bound is None:
            return self.reason
        if self.measure in (Measure.THROUGHPUT, Measure.ATTAINMENT):
            return f"{self.name} +-{self._share:.0%}"
        ms = self.bound * 1000
        return f"{self.name} +-{ms:.{0 if ms >= 10 else 1}f}ms"

    @property
    def _share(self) -> float:
        if self.measure is Measure.ATTAINMENT:
            return self.bound or 0.0
        return self.share

    @property
    def _off(self) -> str:
        if self.bound is None:
            return "has an unknown error"
        if self.measure in (Measure.THROUGHPUT, Measure.ATTAINMENT):
            return f"can be {self._share:.0%} off"
        return f"can be {self.bound * 1000:.1f} ms off"
