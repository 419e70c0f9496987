"""Families from one value of each engine: gauges, counters, state sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmtop.exporter.facts import EngineFacts
from llmtop.exporter.families import Family, Kind, Sample
from llmtop.printable import printable
from llmtop.values import replace

MOST_WORD = 120  # characters of a label


def word(text: str) -> str:
    """A label value as it may be shown, bounded."""
    return printable(text, MOST_WORD)


def distinct(family: Family) -> Family:
    """The family with each series once: a Prometheus takes no page that has one twice.

    Two names may be the same once they are cut and clean.
    """
    samples = {tuple(sorted(one.labels.items())): one for one in reversed(family.samples)}
    parts = {tuple(sorted(one.labels.items())): one for one in reversed(family.distributions)}
    if len(samples) == len(family.samples) and len(parts) == len(family.distributions):
        return family
    return replace(
        family,
        samples=tuple(reversed(samples.values())),
        distributions=tuple(reversed(parts.values())),
    )


def gauge(
    name: str,
    help: str,
    engines: Sequence[EngineFacts],
    value: Callable[[EngineFacts], float | None],
    unit: str = "",
) -> Family:
    """A gauge with a series for each engine of which the value is known."""
    return Family(name, Kind.GAUGE, help, _each(engines, value), unit=unit)


def counter(
    name: str,
    help: str,
    engines: Sequence[EngineFacts],
    value: Callable[[EngineFacts], float | None],
    unit: str = "",
) -> Family:
    """The same as a counter."""
    return Family(name, Kind.COUNTER, help, _each(engines, value), unit=unit)


def _each(
    engines: Sequence[EngineFacts], value: Callable[[EngineFacts], float | None]
) -> tuple[Sample, ...]:
    found = ((one, value(one)) for one in engines)
    return tuple(
        Sample({"engine": word(one.name)}, float(told)) for one, told in found if told is not None
    )


def states(
    name: str,
    help: str,
    words: Sequence[str],
    engines: Sequence[EngineFacts],
    current: Callable[[EngineFacts], str],
) -> Family:
    """A state set: one series for each word, 1 for the present one."""
    return Family(
        name,
        Kind.STATESET,
        help,
        tuple(
            Sample({"engine": word(one.name), name: state}, float(state == now))
            for one in engines
            if (now := current(one)) in words
            for state in words
        ),
    )
