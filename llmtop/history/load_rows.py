"""The figures of a load as a recording stores them, and the conversion from and to the load's
values."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from llmtop.loadgen.core.measures import Verdict
from llmtop.loadgen.core.results import NOTHING, ClientHealth, LatencySummary, LoadSnapshot


class HealthRow(Struct, frozen=True, omit_defaults=True):
    """``ClientHealth`` without the data that its verdicts were computed from."""

    verdict: str = "valid"
    clock: str = ""
    lag: LatencySummary | None = None
    lateness: LatencySummary | None = None
    cpu: float | None = None
    run_delay: float | None = None
    causes: tuple[str, ...] = ()
    measures: tuple[Verdict, ...] = ()
    strain: tuple[str, ...] = ()
    remedy: str = ""


class LoadRow(Struct, frozen=True, omit_defaults=True):
    """A stored ``LoadSnapshot``: the load at one moment. The fields mean the same.

    Times and latencies are in seconds. Latencies and rates are over the last ``window_s`` seconds.
    """

    time: float
    loop: str
    shape: str
    running: bool
    held: bool
    asked: float
    in_flight: int
    waiting_first: int
    sent: int
    ok: int
    failed: int
    cut: int
    window_s: float
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    oldest_wait_s: float | None = None
    ttft: LatencySummary = NOTHING
    tpot: LatencySummary = NOTHING
    itl: LatencySummary = NOTHING
    e2e: LatencySummary = NOTHING
    health: HealthRow = HealthRow()
    errors: Mapping[str, int] = {}
    output_tokens: int = 0
    late: int = 0
    not_sent: int = 0
    thinking: int = 0
    oldest_s: float | None = None
    tokens_per_chunk: float | None = None
    oversaturated: bool | None = None


def row_of(load: LoadSnapshot) -> LoadRow:
    """Convert a snapshot to a row."""
    values = {name: getattr(load, name) for name in LoadRow.__struct_fields__}
    health = load.health
    kept = {name: getattr(health, name) for name in HealthRow.__struct_fields__}
    kept["measures"] = tuple(_finite(one) for one in health.measures)
    values["health"] = HealthRow(**kept)
    return LoadRow(**values)


def snapshot_of(row: LoadRow) -> LoadSnapshot:
    """Convert a row back to a snapshot."""
    values = {name: getattr(row, name) for name in LoadRow.__struct_fields__}
    health = row.health
    kept = {name: getattr(health, name) for name in HealthRow.__struct_fields__}
    values["health"] = ClientHealth(**kept)
    return LoadSnapshot(**values)


def _finite(verdict: Verdict) -> Verdict:
    """The verdict with an infinite bound replaced by None, because JSON has no infinity."""
    if verdict.bound is None or math.isfinite(verdict.bound):
        return verdict
    from llmtop.values import replace

    return replace(verdict, bound=None)
