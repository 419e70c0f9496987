"""Makes families from one value per engine: gauges, counters, state sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmtop.exporter.facts import EngineFacts
from llmtop.exporter.families import Family, Kind, Sample
from llmtop.printable import printable
from llmtop.values import replace

MOST_LABEL = 120  # characters of a label


def label_text(text: str) -> str:
    """A label value, cleaned for display, at most MOST_LABEL characters."""
    return printable(text, MOST_LABEL)


def distinct(family: Family) -> Family:
    """The family without duplicate series: Prometheus rejects a page that has one.

    Names that were different may be equal after they are cut and cleaned.
    """
    samples = {tuple(sorted(one.labels.items())): one for one in reversed(family.samples)}
    histograms = {tuple(sorted(one.labels.items())): one for one in reversed(family.distributions)}
    if len(samples) == len(family.samples) and len(histograms) == len(family.distributions):
        return family
    return replace(
        family,
        samples=tuple(reversed(samples.values())),
        distributions=tuple(reversed(histograms.values())),
    )


def gauge(
    name: str,
    help: str,
    engines: Sequence[EngineFacts],
    value: Callable[[EngineFacts], float | None],
    unit: str = "",
) -> Family:
    """A gauge with a series for each engine whose value is known."""
    return Family(name, Kind.GAUGE, help, _each(engines, value), unit=unit)


def counter(
    name: str,
    help: str,
    engines: Sequence[EngineFacts],
    value: Callable[[EngineFacts], float | None],
    unit: str = "",
) -> Family:
    """A counter with a series for each engine whose value is known."""
    return Family(name, Kind.COUNTER, help, _each(engines, value), unit=unit)


def _each(
    engines: Sequence[EngineFacts], value: Callable[[EngineFacts], float | None]
) -> tuple[Sample, ...]:
    found = ((one, value(one)) for one in engines)
    return tuple(
        Sample({"engine": label_text(one.name)}, float(known))
        for one, known in found
        if known is not None
    )


def states(
    name: str,
    help: str,
    words: Sequence[str],
    engines: Sequence[EngineFacts],
    current: Callable[[EngineFacts], str],
) -> Family:
    """A state set: one series for each word, with 1 for the current state and 0 for the others."""
    return Family(
        name,
        Kind.STATESET,
        help,
        tuple(
            Sample({"engine": label_text(one.name), name: state}, float(state == now))
            for one in engines
            if (now := current(one)) in words
            for state in words
        ),
    )
