"""Prometheus exposition text, without a library: a scrape must not delay a step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Observations by bucket. bounds: upper bounds, ascending, without infinity. total: the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value into the first bucket whose bound it does not exceed."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Page:
    """Collects metric families and returns their text.

    labels: labels of every series. created: unix seconds for the ``_created`` series that
    prometheus_client writes for every counter and histogram.
    """

    def __init__(self, labels: Mapping[str, str], created: float) -> None:
        self._labels = dict(labels)
        self._created = float(created)
        self._families: dict[str, list[str]] = {}
        self._lines: list[str] = []

    def relabel(self, labels: Mapping[str, str]) -> None:
        """Use these labels for the next series: another engine on the same page."""
        self._labels = dict(labels)

    def gauge(self, name: str, help_text: str, value: float) -> None:
        """Add a gauge with only the page's labels."""
        self.family(name, "gauge", help_text, [({}, value)])

    def counter(
        self, name: str, help_text: str, value: float | Sequence[tuple[Mapping[str, str], float]]
    ) -> None:
        """Add a counter ``name``_total with one series, or with several that have own labels."""
        series = [({}, value)] if isinstance(value, int | float) else list(value)
        self.family(f"{name}_total", "counter", help_text, series)
        created = [(labels, self._created) for labels, _ in series]
        self.family(f"{name}_created", "gauge", help_text, created)

    def histogram(self, name: str, help_text: str, histogram: Histogram) -> None:
        """Add a histogram with cumulative buckets, count and sum."""
        self._head(name, "histogram", help_text)
        bounds = [repr(float(bound)) for bound in histogram.bounds] + ["+Inf"]
        cumulative = 0
        for bound, count in zip(bounds, histogram.counts, strict=True):
            cumulative += count
            self._line(f"{name}_bucket", {"le": bound}, cumulative)
        self._line(f"{name}_count", {}, cumulative)
        self._line(f"{name}_sum", {}, histogram.total)
        self.family(f"{name}_created", "gauge", help_text, [({}, self._created)])

    def family(
        self,
        name: str,
        kind: str,
        help_text: str,
        series: Sequence[tuple[Mapping[str, str], float]],
        bare: bool = False,
    ) -> None:
        """Add a family of any kind. bare: without the page's labels."""
        self._head(name, kind, help_text)
        for labels, value in series:
            self._line(name, labels, value, bare)

    def text(self) -> str:
        """The text of the page."""
        lines = (line for family in self._families.values() for line in family)
        return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str, help_text: str) -> None:
        # Once for each family: the series of several engines must be together.
        head = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
        self._lines = self._families.setdefault(name, head)

    def _line(self, name: str, labels: Mapping[str, str], value: float, bare: bool = False) -> None:
        every = labels if bare else {**self._labels, **labels}
        inside = ",".join(f'{key}="{_escaped(every[key])}"' for key in sorted(every))
        self._lines.append(
            f"{name}{{{inside}}} {float(value)!r}" if inside else f"{name} {value!r}"
        )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
