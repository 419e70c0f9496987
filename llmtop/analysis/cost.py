"""The cost of an engine's tokens: energy, price, idle GPU time, unused KV memory. Pure.

Energy is the difference of NVML's energy counter over a window. The price is that of the GPUs per
hour over the tokens per hour. Idle time is one minus NVML's utilisation, which counts a GPU as busy
while any kernel runs. All values are of whole GPUs, so other processes on them count too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from llmtop.engines.core.samples import GpuSample

WINDOW_S = 60.0
SHORTEST_S = 5.0  # NVML updates its counters a few times a second, so a shorter window is inexact
KEPT = 400  # moments: more than a minute at the shortest interval


class Cost(Struct, frozen=True):
    """The cost of one engine over the last ``window_s`` seconds. None: not known.

    gpus: number of its GPUs. idle: idle share of their time, 0..1. tokens_per_s: mean of the
    generated tokens. kv_peak: highest KV usage since ``kv_since`` (unix seconds), 0..1. kv_unused:
    bytes of KV cache on all its GPUs that were never used since then.
    """

    window_s: float
    gpus: int | None = None
    tokens_per_joule: float | None = None
    idle: float | None = None
    tokens_per_s: float | None = None
    kv_peak: float | None = None
    kv_since: float | None = None
    kv_unused: float | None = None

    def per_million(self, gpu_hour: float | None) -> float | None:
        """The price of a million generated tokens. gpu_hour: the price of one GPU for one hour.

        An engine whose GPUs are not known (at a URL, or simulated) counts as one GPU.
        """
        if gpu_hour is None or not self.tokens_per_s:
            return None
        return gpu_hour * (self.gpus or 1) / 3600 / self.tokens_per_s * 1e6


class _Moment(Struct, frozen=True):
    time: float
    tokens_per_s: float | None
    energy_j: float | None
    busy: float | None


class CostMeter:
    """Computes the cost of one engine from its last minute. Times are unix seconds."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque(maxlen=KEPT)
        self._gpus: tuple[str, ...] = ()
        self._peak: float | None = None
        self._since: float | None = None

    def reset(self) -> None:
        """Forget all values, for a new process of the engine."""
        self._moments.clear()
        self._peak = self._since = None

    def add(
        self,
        time: float,
        tokens_per_s: float | None,
        kv_usage: float | None,
        gpus: Sequence[GpuSample],
        kv_bytes: float | None,
    ) -> Cost:
        """Add the values of one moment and return the cost.

        tokens_per_s: generated. kv_usage: 0..1. gpus: those of the engine. kv_bytes: size of its KV
        cache on each GPU.
        """
        uuids = tuple(gpu.uuid for gpu in gpus)
        if uuids != self._gpus:
            self._gpus = uuids
            self._moments.clear()
        while self._moments and (
            self._moments[0].time < time - WINDOW_S or self._moments[-1].time >= time
        ):
            self._moments.popleft()
        energy, busy = _energy(gpus), _busy(gpus)
        self._moments.append(_Moment(time, tokens_per_s, energy, busy))
        if kv_usage is not None:
            self._since = time if self._since is None else self._since
            self._peak = max(kv_usage, self._peak or 0.0)
        unused = None
        if kv_bytes is not None and self._peak is not None:
            unused = kv_bytes * max(1, len(gpus)) * max(0.0, 1.0 - self._peak)
        span = time - self._moments[0].time
        known_busy = [m.busy for m in self._moments if m.busy is not None]
        return Cost(
            window_s=span,
            gpus=len(gpus) or None,
            tokens_per_joule=self._tokens_per_joule(),
            idle=1 - sum(known_busy) / len(known_busy) if known_busy else None,
            tokens_per_s=_mean([m.tokens_per_s for m in self._moments]),
            kv_peak=self._peak,
            kv_since=self._since,
            kv_unused=unused,
        )

    def _tokens_per_joule(self) -> float | None:
        known = [m for m in self._moments if m.energy_j is not None]
        if len(known) < 2:
            return None
        first, last = known[0], known[-1]  # the energy counter is read less often than the tokens
        assert first.energy_j is not None and last.energy_j is not None
        rates = [m.tokens_per_s for m in self._moments if first.time < m.time <= last.time]
        rate = _mean(rates)
        joules = last.energy_j - first.energy_j
        seconds = last.time - first.time
        if rate is None or joules <= 0 or seconds < SHORTEST_S:
            return None
        return rate * seconds / joules


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _energy(gpus: Sequence[GpuSample]) -> float | None:
    """The sum of the energy counters in joules; None without GPUs, or if one has no counter."""
    known = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    return sum(known) if known and len(known) == len(gpus) else None


def _busy(gpus: Sequence[GpuSample]) -> float | None:
    return _mean([gpu.utilisation for gpu in gpus])
