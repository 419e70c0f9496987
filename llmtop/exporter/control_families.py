"""Metric families of options, of their changes, and of `llmtop hold`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmtop.exporter.facts import EngineFacts
from llmtop.exporter.families import Family, Kind, Sample
from llmtop.exporter.series import gauge, label_text

MOST_OPTIONS = 40
MOST_VALUE = 1e30  # larger values are not plausible, and may not fit into a float


def control(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    """The families of options in force, their changes, and holds."""
    yield from _options(engines)
    yield from _holds(engines)


def _options(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    values, words, changes = [], [], []
    for one in engines:
        for option, value in list(one.options.items())[:MOST_OPTIONS]:
            labels = {"engine": label_text(one.name), "option": label_text(option)}
            if isinstance(value, bool | int | float):
                if abs(value) < MOST_VALUE:
                    values.append(Sample(labels, float(value)))
            elif isinstance(value, str):
                words.append(Sample({**labels, "value": label_text(value)}, 1.0))
        for option, count in list(one.changes.items())[:MOST_OPTIONS]:
            labels = {"engine": label_text(one.name), "option": label_text(option)}
            changes.append(Sample(labels, float(count)))
    yield Family("llmtop_option", Kind.GAUGE, "Value of an option in force.", tuple(values))
    yield Family("llmtop_option_text", Kind.INFO, "Text of an option in force.", tuple(words))
    yield Family(
        "llmtop_option_changes", Kind.COUNTER, "Changes of an option's value.", tuple(changes)
    )


def _holds(engines: Sequence[EngineFacts]) -> Iterable[Family]:
    held = [(one, one.hold) for one in engines if one.hold is not None]
    yield gauge(
        "llmtop_held",
        "1 while llmtop hold runs for the engine, even if its limits are not met.",
        engines,
        lambda one: float(one.hold.held) if one.hold is not None else None,
    )  # fmt: skip
    yield gauge(
        "llmtop_hold_engaged", "1 while limits of the hold are in force.", engines,
        lambda one: None if one.hold is None or one.hold.engaged is None
        else float(one.hold.engaged),
    )  # fmt: skip
    yield Family(
        "llmtop_hold_limit",
        Kind.GAUGE,
        "Values in force of the options that the hold may set.",
        tuple(
            Sample({"engine": label_text(one.name), "option": label_text(option)}, float(value))
            for one, hold in held
            for option, value in list(hold.limits.items())[:MOST_OPTIONS]
        ),
    )
    yield Family(
        "llmtop_hold_actions",
        Kind.COUNTER,
        "Changes that a hold made, by option; none: an event without a change.",
        tuple(
            Sample({"engine": label_text(one.name), "option": label_text(option)}, float(count))
            for one, hold in held
            for option, count in list(hold.actions.items())[:MOST_OPTIONS]
        ),
    )
