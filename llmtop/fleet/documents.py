"""The JSON document of ``llmtop fleet --once --json``. Its schema is generated from these types.

null means unknown, never zero. docs/reference/json.md describes the fields.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

State = Literal["gone", "hung", "stale", "restarted", "ready"]


class Percentiles(msgspec.Struct, frozen=True):
    """A distribution over a window, in seconds.

    A percentile is null if the buckets give only a range; its bounds are in the other fields.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    mean: float | None
    n: int
    window_s: float
    p50_at_least: float | UnsetType = UNSET
    p50_at_most: float | UnsetType = UNSET
    p50_below: float | UnsetType = UNSET
    p50_above: float | UnsetType = UNSET
    p95_at_least: float | UnsetType = UNSET
    p95_at_most: float | UnsetType = UNSET
    p95_below: float | UnsetType = UNSET
    p95_above: float | UnsetType = UNSET
    p99_at_least: float | UnsetType = UNSET
    p99_at_most: float | UnsetType = UNSET
    p99_below: float | UnsetType = UNSET
    p99_above: float | UnsetType = UNSET


class ConditionEntry(msgspec.Struct, frozen=True):
    """A fault of an instance that its metrics show."""

    name: str
    message: str
    hint: str


class InstanceEntry(msgspec.Struct, frozen=True):
    """One instance. Shares are 0..1."""

    instance: str
    job: str
    host: str
    engine: str
    simulated: bool
    model: str | None
    version: str | None
    state: State
    reason: str | None
    age_s: float | None
    running: int | None
    waiting: int | None
    kv_usage: float | None
    output_tokens_per_s: float | None
    rate_window_s: float | None
    ttft_s: Percentiles
    prefix_hit_rate: float | None
    preemptions: int | None
    power_w: float | None
    power_shared: bool
    gpus: int | None
    dollars_per_million_tokens: float | None
    conditions: list[ConditionEntry]


class GroupEntry(msgspec.Struct, frozen=True):
    """One group. It has the keys of ``--group``, with the values that its instances share."""

    instances: int
    states: dict[str, int]
    running: int | None
    waiting: int | None
    kv_usage: float | None
    output_tokens_per_s: float | None
    ttft_s: Percentiles
    power_w: float | None
    dollars_per_million_tokens: float | None
    imbalance: list[str]
    model: str | UnsetType = UNSET
    engine: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    job: str | UnsetType = UNSET


class FleetDocument(msgspec.Struct, frozen=True):
    """One poll of a Prometheus. time: unix seconds. trouble: always null here."""

    time: float
    trouble: str | None
    instances: list[InstanceEntry]
    groups: list[GroupEntry]


def schema() -> dict[str, Any]:
    """The JSON schema of the document."""
    found = msgspec.json.schema(FleetDocument)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
