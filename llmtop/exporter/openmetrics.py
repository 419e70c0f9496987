"""The text formats OpenMetrics 1.0 and Prometheus 0.0.4, without values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from llmtop.exporter.buckets import classic
from llmtop.exporter.families import Distribution, Family, Kind, Labels

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info"}


def text(families: Iterable[Family], *, plain: bool = False) -> str:
    """The whole page. plain: in format 0.0.4, which writes infos and state sets as gauges."""
    lines = [line for family in families for line in _lines(family, plain)]
    return "\n".join(lines if plain else [*lines, "# EOF"]) + "\n"


def _lines(family: Family, plain: bool) -> Iterator[str]:
    name, suffix = family.name, _SUFFIX.get(family.kind, "")
    shown = name + suffix if plain else name
    kind = Kind.GAUGE if plain and family.kind in (Kind.INFO, Kind.STATESET) else family.kind
    yield f"# HELP {shown} {_escaped(family.help)}"
    yield f"# TYPE {shown} {kind.value}"
    if family.unit and not plain:
        yield f"# UNIT {name} {family.unit}"
    for sample in family.samples:
        if math.isfinite(sample.value):
            yield f"{name}{suffix}{_braces(sample.labels)} {number(sample.value)}"
    for one in family.distributions:
        yield from _histogram(name, one)


def _histogram(name: str, one: Distribution) -> Iterator[str]:
    for bound, count in classic(one.histogram):
        yield f"{name}_bucket{_braces({**one.labels, 'le': bound})} {count}"
    yield f"{name}_sum{_braces(one.labels)} {number(one.histogram.sum_s)}"
    yield f"{name}_count{_braces(one.labels)} {one.histogram.count}"


def number(value: float) -> str:
    """A value as text."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
