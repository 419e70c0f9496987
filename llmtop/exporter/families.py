"""Metric families as plain values, from which the text and the protobuf format are written."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.latencies import LatencyHistogram

Labels = Mapping[str, str]


class Kind(StrEnum):
    """The metric types of OpenMetrics that llmtop uses."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    STATESET = "stateset"
    HISTOGRAM = "histogram"


class Sample(Struct, frozen=True):
    """One value. In a state set, the label with the name of the family is the state."""

    labels: Labels
    value: float


class Distribution(Struct, frozen=True):
    """One histogram, with all observations since the engine started."""

    labels: Labels
    histogram: LatencyHistogram


class Family(Struct, frozen=True):
    """A metric with its series. name: without the suffix ``_total``, ``_info`` or ``_bucket``."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    unit: str = ""
