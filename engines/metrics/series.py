"""Looks series up on pages with several processes or with other names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from llmtop.engines.core.adapter import MetricText, SeriesNames
from llmtop.engines.core.samples import Latency

Labels = Mapping[str, str]
Series = Sequence[tuple[Labels, float]]

PID = "pid"
TOTAL = "_total"


def by_engine(series: Series) -> tuple[tuple[Labels, float], ...]:
    """A gauge's series, one for each engine: the maximum over its processes.

    With several API servers each process writes the gauge of one engine with its own ``pid``. Only
    one of them has the value; the others stay at 0. Values that are not numbers are skipped.
    """
    found: dict[frozenset[tuple[str, str]], tuple[Labels, float]] = {}
    for labels, value in series:
        if not math.isfinite(value):
            continue
        rest = {name: text for name, text in labels.items() if name != PID}
        key = frozenset(rest.items())
        if key not in found or value > found[key][1]:
            found[key] = rest, value
    return tuple(found.values())


def gauge(text: MetricText, name: str) -> float | None:
    """The sum of a gauge over the engines of a page; None without the gauge."""
    found = by_engine(text.series(name))
    return sum(value for _, value in found) if found else None


def looked_up(
    running: str,
    gauges: Iterable[str],
    counters: Iterable[str],
    histograms: Mapping[Latency, str],
    others: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> SeriesNames:
    """The names of an adapter's tables, with the names that ``Names`` accepts in their place."""

    def versions(name: str) -> tuple[str, ...]:
        return (name, *others.get(name, ()))

    counted = [one for name in counters for one in versions(name)]
    bare = [name.removesuffix(TOTAL) for name in counted]
    values = [one for name in (running, *gauges) for one in versions(name)]
    return SeriesNames(
        running=versions(running),
        values=tuple(dict.fromkeys([*values, *counted, *bare])),
        histograms={latency: versions(name) for latency, name in histograms.items()},
    )


class Names:
    """Looks numbers up by their own name, else by other names, and remembers the name used.

    others: the names that a number has in other versions, by its own name.
    """

    def __init__(self, text: MetricText, others: Mapping[str, Sequence[str]]) -> None:
        self._text = text
        self._others = others
        self.renamed: dict[str, str] = {}  # own name -> the name that it was read from
        self.bare: dict[str, str] = {}  # the same, of counters that have lost their "_total"

    def name(self, own: str, suffix: str = "") -> str:
        """The name to read. suffix: of a histogram's series."""
        if self._text.series(own + suffix):
            return own
        for other in self._others.get(own, ()):
            if self._text.series(other + suffix):
                self.renamed[own] = other
                return other
        bare = own.removesuffix(TOTAL)
        if bare != own and self._text.series(bare):
            self.bare[own] = bare
            return bare
        return own
