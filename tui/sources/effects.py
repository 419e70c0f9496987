"""Reports the measured effect of each change as an event."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.analysis.effects import Effects, Figures, mean_rate
from llmtop.analysis.series import SeriesName
from llmtop.engines.core.records import State
from llmtop.engines.core.samples import Latency, Quantile
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.wording.sentences import effect_words

RATE_S = 3.0  # window of the rates, if a sample does not report it


class EffectSource:
    """Collects the figures of every engine and of our load; reports each change's effect once."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._effects: dict[str, Effects] = {}

    async def sample(self) -> None:
        """Take the newest figures, then report the effects that are due."""
        now = self._now()
        for name in [name for name in self._effects if name not in self._store.engines]:
            del self._effects[name]
        for name, track in self._store.engines.items():
            effects = self._effects.setdefault(name, Effects())
            server, client = _server(track), self._client(track)
            if server is not None:
                effects.add("server", server)
            if client is not None:
                effects.add("client", client)
            effects.add_marks(track.marks)
            for effect in effects.due(now):
                parts = effect_words(effect)
                self._store.events.append(Event(now, "effect", " · ".join(parts), parts))

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    def _client(self, track: EngineTrack) -> Figures | None:
        load = self._store.load
        at = _newest(track, SeriesName.CLIENT_TTFT_P95)
        if load is None or at is None or self._store.load_target != track.name or _down(track):
            return None
        if not load.running and not load.in_flight:
            return None
        p95 = load.ttft.p95
        window_s = load.ttft.window_s if load.ttft.window_s is not None else load.window_s
        return Figures(
            at,
            window_s,
            Quantile(p95) if p95 is not None else None,
            load.output_tokens_per_s,
            load.ttft.n,
            load.asked,
        )


def _server(track: EngineTrack) -> Figures | None:
    sample, at = track.sample, _newest(track, SeriesName.OUTPUT_TOKENS)
    if sample is None or at is None or track.stale_since is not None or _down(track):
        return None
    own = sample.latencies.get(Latency.TTFT)
    window_s = own.window_s if own is not None else sample.window_s
    if window_s <= 0:
        return None
    rates = track.series[SeriesName.OUTPUT_TOKENS].since(at - window_s)
    rate_s = sample.rate_window_s if sample.rate_window_s is not None else RATE_S
    return Figures(
        at,
        window_s,
        own.p95 if own is not None else None,
        mean_rate(rates, at, window_s, rate_s),
        own.n if own is not None else 0,
        ttft_mean=own.mean if own is not None else None,
    )


def _down(track: EngineTrack) -> bool:
    return track.status is not None and track.status.state is not State.READY


def _newest(track: EngineTrack, name: SeriesName) -> float | None:
    """The time of the newest point of a series, unix seconds; None if there is none."""
    series = track.series.get(name)
    return series.newest if series is not None else None
