"""Converts one engine of the store to the exporter's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.engines.core.conditions import STALE
from llmtop.engines.core.records import State
from llmtop.exporter.engine_families import PARTS
from llmtop.exporter.facts import EngineFacts, HoldFacts, LoadFacts

if TYPE_CHECKING:
    from llmtop.operations.shared_load import SharedLoad
    from llmtop.tui.monitoring.engine_watch import EngineWatch
    from llmtop.tui.store.store import EngineTrack

FROZEN = "stopped by a signal"  # the text of ``supervision.health``


def facts(track: EngineTrack, watch: EngineWatch, gpu_hour: float | None = None) -> EngineFacts:
    """The facts to export now. gpu_hour: price of one GPU hour, in dollars; None: no price."""
    sample, status, cost, memory = track.sample, track.status, track.cost, track.memory_report
    fresh = track.stale_since is None and sample is not None
    alive = status is None or status.state in (State.READY, State.UNRESPONSIVE)
    fresh = fresh and alive
    current = sample if fresh else None
    totals = watch.totals
    parts = {name: getattr(memory, name) for name in PARTS} if memory is not None else {}
    why = track.why if fresh else None
    return EngineFacts(
        name=track.name,
        kind=track.kind,
        state=status.state.value if status is not None else "attached",
        url=track.url,
        model=track.model or "",
        version=track.version or "",
        simulated=track.simulated,
        answers=fresh,
        frozen=FROZEN in status.phase if status is not None else None,
        hung=any(one.name in STALE for one in track.conditions),
        running=current.running if current is not None else None,
        waiting=current.waiting if current is not None else None,
        kv_usage=current.kv_usage if current is not None else None,
        level=track.load_state.level.name.lower() if track.load_state is not None else "",
        causes={one.cause.value: one.share for one in why.causes} if why is not None else {},
        latencies=watch.latencies,
        steps=dict(totals.steps),
        host_gap_s=totals.host_gap_s,
        idle_s=totals.idle_s,
        steps_lost=totals.lost if watch.shows_steps else None,
        refused=totals.refused,
        preempted=totals.preempted,
        oldest_wait_s=watch.oldest_wait_s if fresh else None,
        memory={name: size for name, size in parts.items() if size is not None},
        restarts=watch.restarts,
        cause=watch.cause,
        options=dict(watch.options) if alive else {},
        changes=dict(watch.changes),
        tokens_per_joule=cost.tokens_per_joule if fresh and cost is not None else None,
        dollars_per_million_tokens=_dollars(track, gpu_hour) if fresh else None,
        hold=_hold(watch) if track.owned else None,
        load=_load(track.shared_load),
    )


def _dollars(track: EngineTrack, gpu_hour: float | None) -> float | None:
    """Dollars per million tokens. None if the number of GPUs is not known.

    A simulated engine counts as one GPU.
    """
    cost = track.cost
    if cost is None or not (cost.gpus or track.simulated):
        return None
    return cost.per_million(gpu_hour)


def _hold(watch: EngineWatch) -> HoldFacts:
    found = watch.hold
    return HoldFacts(
        held=found is not None,
        engaged=found.engaged if found is not None else None,
        limits=dict(found.limits) if found is not None else {},
        actions=dict(watch.hold_actions),
    )


def _load(load: SharedLoad | None) -> LoadFacts | None:
    if load is None:
        return None
    quantiles = {"0.5": load.ttft_p50, "0.95": load.ttft_p95, "0.99": load.ttft_p99}
    return LoadFacts(
        in_flight=load.in_flight,
        ok=load.ok,
        failed=load.failed,
        refused=load.refused,
        requests_per_s=load.requests_per_s,
        output_tokens_per_s=load.output_tokens_per_s,
        ttft_s={name: value for name, value in quantiles.items() if value is not None},
        oldest_wait_s=load.oldest_wait_s,
    )
