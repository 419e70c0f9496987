"""An engine's conditions on its state line: as the state itself, or as text beside it."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.core.conditions import Condition, Name

# These conditions replace the state, because there are no numbers. At most ten characters each.
WORDS = {
    Name.NEEDS_KEY: "NEEDS KEY",
    Name.ASLEEP: "ASLEEP",
    Name.SEVERAL_SERVERS: "REPLICAS",
    Name.ROUTER: "ROUTER",
    Name.NO_METRICS: "NO METRICS",
}

# With one of these, numbers that the state is derived from are not reliable.
OF_NUMBERS = frozenset(
    {
        Name.IMPOSSIBLE,
        Name.MISSING_TOTALS,
        Name.RENAMED_SERIES,
        Name.SEVERAL_MODELS,
        Name.UNEVEN_RANKS,
    }
)


def state_of(found: Sequence[Condition]) -> Condition | None:
    """The most severe condition that replaces the engine's state; None if there is none."""
    return next((one for one in found if one.name in WORDS), None)


def of_numbers(found: Sequence[Condition]) -> tuple[str, ...]:
    """The messages to show before the numbers, because the numbers are not reliable."""
    return tuple(one.message for one in found if one.name in OF_NUMBERS)


def beside(found: Sequence[Condition]) -> tuple[str, ...]:
    """The messages to show beside a state that is derived from the numbers."""
    shown = {*WORDS, *OF_NUMBERS, Name.HUNG}  # HUNG is itself a state
    return tuple(one.message for one in found if one.name not in shown)
