"""The exported values of one engine. None means not known, and gives no series."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from llmtop.engines.core.latencies import LatencyHistogram
from llmtop.engines.core.options import OptionValue


class LoadFacts(Struct, frozen=True):
    """The load that llmtop sends to the engine, as the client measures it.

    in_flight: requests. ok, failed, refused: numbers of requests by result. ttft_s: quantiles.
    oldest_wait_s: age of the oldest request without a first token.
    """

    in_flight: int
    ok: int
    failed: int
    refused: int = 0
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    ttft_s: Mapping[str, float] = field(default_factory=dict)  # by quantile: "0.5", "0.95", "0.99"
    oldest_wait_s: float | None = None


class HoldFacts(Struct, frozen=True):
    """The state of `llmtop hold`. held: a hold runs.

    engaged: its limits are in force; None: no hold. limits: values in force by option. actions:
    number of changes by option since the exporter began.
    """

    held: bool
    engaged: bool | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    actions: Mapping[str, int] = field(default_factory=dict)


class EngineFacts(Struct, frozen=True):
    """One engine at one moment.

    latencies: by name, since the engine started. steps: (seconds, count) by kind. steps,
    host_gap_s, idle_s, refused, preempted, restarts and changes count since the exporter began.
    causes: shares of the time of requests by cause, the main cause first. memory: bytes by part, on
    each GPU. cause: why its last process ended, "" if none has ended. frozen: a signal has stopped
    its process; None for an engine that llmtop did not start. kv_usage: 0..1. changes: number of
    changes by option.
    """

    name: str
    kind: str
    state: str
    url: str = ""
    model: str = ""
    version: str = ""
    simulated: bool = False
    answers: bool = True
    frozen: bool | None = None
    hung: bool = False
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    level: str = ""
    causes: Mapping[str, float | None] = field(default_factory=dict)
    latencies: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    steps: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    host_gap_s: float | None = None
    idle_s: float | None = None
    steps_lost: int | None = None
    refused: int | None = None
    preempted: int | None = None
    oldest_wait_s: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)
    restarts: int = 0
    cause: str = ""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    tokens_per_joule: float | None = None
    dollars_per_million_tokens: float | None = None
    hold: HoldFacts | None = None
    load: LoadFacts | None = None
