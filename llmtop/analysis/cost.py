"""What an engine's tokens cost: energy, money, idle GPU time, KV memory that was never used. Pure.

Energy is NVML's own counter over a window; money is what the GPUs cost an hour over what they made
in it; a share of idle time is one minus NVML's utilisation, which counts a GPU as busy while any
kernel runs on it. All over whole GPUs: who else uses them counts too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from llmtop.engines.core.samples import GpuSample

WINDOW_S = 60.0
SHORTEST_S = 5.0  # NVML renews its counters a few times a second: less would tell of its beat
KEPT = 400  # moments: over a minute at the shortest interval


class Cost(Struct, frozen=True):
    """What one engine cost over the last ``window_s`` seconds; None: not known.

    gpus: how many it was found on. idle: share of their time, 0..1. tokens_per_s: generated, the
    mean. kv_peak: the highest occupancy since ``kv_since`` (unix seconds), 0..1. kv_unused: bytes
    of KV cache on all its GPUs that nothing was ever in since then.
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
        """The price of a million generated tokens, where a GPU costs so much an hour.

        An engine whose GPUs are not known (at a URL, or simulated) counts as one.
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
    """Keeps a minute of one engine's moments. Times are the screen's clock, unix seconds."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque(maxlen=KEPT)
        self._gpus: tuple[str, ...] = ()
        self._peak: float | None = None
        self._since: float | None = None

    def begin(self) -> None:
        """Another process: what the last one used says nothing of this one."""
        self._moments.clear()
        self._peak = self._since = None

    def note(
        self,
        time: float,
        tokens_per_s: float | None,
        kv_usage: float | None,
        gpus: Sequence[GpuSample],
        kv_bytes: float | None,
    ) -> Cost:
        """Take a moment in. gpus: the engine's own. kv_bytes: its KV cache on each of them."""
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
        busy_known = [m.busy for m in self._moments if m.busy is not None]
        return Cost(
            window_s=span,
            gpus=len(gpus) or None,
            tokens_per_joule=self._tokens_per_joule(),
            idle=1 - sum(busy_known) / len(busy_known) if busy_known else None,
            tokens_per_s=_mean([m.tokens_per_s for m in self._moments]),
            kv_peak=self._peak,
            kv_since=self._since,
            kv_unused=unused,
        )

    def _tokens_per_joule(self) -> float | None:
        known = [m for m in self._moments if m.energy_j is not None]
        if len(known) < 2:
            return None
        first, last = known[0], known[-1]  # the counter is read less often than the tokens
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
    """The sum of their counters; None where one of them does not report it, or there is none."""
    told = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    return sum(told) if told and len(told) == len(gpus) else None


def _busy(gpus: Sequence[GpuSample]) -> float | None:
    return _mean([gpu.utilisation for gpu in gpus])
