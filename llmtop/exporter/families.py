"""Families of metrics as plain values: what the text and the protobuf form are written from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.latencies import LatencyHistogram

Labels = Mapping[str, str]


class Kind(StrEnum):
    """The types of OpenMetrics that are used."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    STATESET = "stateset"
    HISTOGRAM = "histogram"


class Sample(Struct, frozen=True):
    """One value. Of a state set, ``labels`` has the family's own name with the state."""

    labels: Labels
    value: float


class Distribution(Struct, frozen=True):
    """One histogram, with all its observations since the engine started."""

    labels: Labels
    histogram: LatencyHistogram


class Family(Struct, frozen=True):
    """One metric with its series. name: without ``_total``, ``_info`` or ``_bucket``."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    unit: str = ""
