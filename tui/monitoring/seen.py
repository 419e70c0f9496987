"""The inputs of alert rules for one engine: states, and numbers, which are exact if possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.alerts.expression import LEVELS, Range, Snapshot
from llmtop.engines.core.conditions import STALE
from llmtop.engines.core.latencies import RELATIVE_ERROR
from llmtop.engines.core.records import State
from llmtop.engines.core.samples import Latency
from llmtop.engines.metrics.histograms import FEWEST_P95, FEWEST_P99

if TYPE_CHECKING:
    from llmtop.engines.core.samples import Quantile
    from llmtop.tui.monitoring.engine_watch import EngineWatch
    from llmtop.tui.store.store import EngineTrack

_SHARES = (("p50", 0.50, 1), ("p95", 0.95, FEWEST_P95), ("p99", 0.99, FEWEST_P99))


def seen_of(track: EngineTrack, watch: EngineWatch) -> Snapshot:
    """The present state and numbers of an engine. Stale numbers are left out."""
    words = set()
    if any(one.name in STALE for one in track.conditions):
        words.add("hung")
    state = track.status.state if track.status is not None else None
    alive = state in (None, State.READY, State.UNRESPONSIVE)
    if track.stale_since is not None and alive:
        words.add("stale")
    if track.load_state is not None and (name := track.load_state.level.name.lower()) in LEVELS:
        words.add(name)
    if state in (State.UNRESPONSIVE, State.FAILED, State.LOST):
        words.add(state.value)
    fresh = track.stale_since is None and alive
    numbers = _numbers(track, watch) if fresh else {}
    empty = _empty(track, watch) if fresh else frozenset()
    return Snapshot(state.value if state is not None else "", frozenset(words), numbers, empty)


def _numbers(track: EngineTrack, watch: EngineWatch) -> dict[str, Range | None]:
    sample = track.sample
    if sample is None:
        return {}
    plain = {
        "running": sample.running,
        "waiting": sample.waiting,
        "kv": sample.kv_usage,
        "prefix_hit": sample.prefix_hit_rate,
        "tok/s": sample.output_tokens_per_s,
        "requests/s": sample.requests_per_s,
        "preempted": sample.preemptions,
        "refused": watch.totals.refused,
        "oldest": watch.oldest_wait_s,
    }
    found: dict[str, Range | None] = {
        name: Range(float(value), float(value))
        for name, value in plain.items()
        if value is not None
    }
    for latency in Latency:
        exact = watch.recent(latency.value)
        reported = sample.latencies.get(latency)
        for name, share, least in _SHARES:
            key = f"{latency.value}_{name}"
            if exact is not None and exact.count >= least:
                value = exact.quantile(share)
                if value is not None:
                    found[key] = Range(value * (1 - RELATIVE_ERROR), value * (1 + RELATIVE_ERROR))
            elif reported is not None:
                found[key] = _range(getattr(reported, name))
    return found


def _empty(track: EngineTrack, watch: EngineWatch) -> frozenset[str]:
    """The names of percentiles over zero requests."""
    sample = track.sample
    found = set()
    for latency in Latency:
        exact = watch.recent(latency.value)
        reported = sample.latencies.get(latency) if sample is not None else None
        count = exact.count if exact is not None else (reported.n if reported is not None else None)
        if count == 0:
            found |= {f"{latency.value}_{name}" for name, _, _ in _SHARES}
    return frozenset(found)


def _range(quantile: Quantile | None) -> Range | None:
    return None if quantile is None else Range(quantile.at_least, quantile.at_most)
