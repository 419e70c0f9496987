"""The result of one level of load, and which of its figures are valid for the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop.loadgen.core.measures import Measure
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, RequestRecord
from llmtop.loadgen.statistics.client_health import VALID

if TYPE_CHECKING:
    from llmtop.loadgen.core.measures import Verdict


class Usage(Struct, frozen=True):
    """Hardware use at a level. gpu_idle: share of the time without a kernel, mean over the engine's
    GPUs. kv_peak: the highest use of the KV cache, 0..1. None: unknown."""

    gpu_idle: float | None = None
    kv_peak: float | None = None


class LevelResult(Struct, frozen=True):
    """The results of one level over a window of ``seconds``, after ``warm_up_s``.

    ok, failed, cut, refused: requests that ended in the window and were sent at this level.
    in_time: those that met every limit (without limits: all ok requests). error: the relative
    standard error of the throughput. in_flight: the mean. little: X R / N, from reaching the level
    until the start of the oldest request in flight at the end, with exact edges: 1 by Little's law
    for every engine. None: too short, or requests failed. steady: every stream had finished a
    request before the window, and TTFT did not grow in it. stalled: no request ended although
    requests were in flight. itl and health cover the end of the window. energy_j: of the GPUs over
    the window. usage: of GPU time and KV cache in it. records: the counted requests.
    """

    level: int
    seconds: float
    warm_up_s: float
    ok: int
    failed: int
    cut: int
    in_time: int
    output_tokens_per_s: float
    error: float | None
    requests_per_s: float
    in_flight: float
    little: float | None
    steady: bool
    stalled: bool
    ttft: LatencySummary
    tpot: LatencySummary
    e2e: LatencySummary
    itl: LatencySummary
    health: ClientHealth
    energy_j: float | None = None
    usage: Usage = Usage()
    refused: int = 0
    records: tuple[RequestRecord, ...] = ()

    @property
    def n(self) -> int:
        """Requests that count for the limits."""
        return self.ok + self.failed + self.cut + self.refused

    @property
    def valid(self) -> bool:
        """Whether the measures of interest are valid: this client's error is negligible."""
        return self.health.verdict == VALID

    def verdict(self, measure: Measure, quantile: str = "") -> Verdict | None:
        """The verdict on one measure, or None."""
        return next(
            (
                one
                for one in self.health.measures
                if (one.measure, one.quantile) == (measure, quantile)
            ),
            None,
        )

    @property
    def goodput_per_s(self) -> float:
        """Requests in time, a second."""
        return self.in_time / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tokens per joule of the GPUs; None if the energy is unknown."""
        if not self.energy_j or self.energy_j <= 0:
            return None
        return self.output_tokens_per_s * self.seconds / self.energy_j

    def dollars_per_million(self, dollars_an_hour: float) -> float | None:
        """Price of a million output tokens on hardware at that price; None without tokens."""
        if self.output_tokens_per_s <= 0:
            return None
        return dollars_an_hour / 3600 / self.output_tokens_per_s * 1e6
