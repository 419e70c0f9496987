"""An engine's conditions on its state line: some are its state, the others stand beside it."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.core.conditions import Condition, Name

# These are what there is to know before any number. At most ten characters, as the other states.
WORDS = {
    Name.NEEDS_KEY: "NEEDS KEY",
    Name.ASLEEP: "ASLEEP",
    Name.SEVERAL_SERVERS: "REPLICAS",
    Name.ROUTER: "ROUTER",
    Name.NO_METRICS: "NO METRICS",
}

# With one of these a number that the state is made of is not what it seems to be.
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
    """The gravest condition that is the engine's state in itself; None when there is none."""
    return next((one for one in found if one.name in WORDS), None)


def of_numbers(found: Sequence[Condition]) -> tuple[str, ...]:
    """Messages that are read before the numbers, because they limit what the numbers mean."""
    return tuple(one.message for one in found if one.name in OF_NUMBERS)


def beside(found: Sequence[Condition]) -> tuple[str, ...]:
    """Messages of the others, which stand beside a state that comes from the numbers."""
    shown = {*WORDS, *OF_NUMBERS, Name.HUNG}  # HUNG is a state of its own
    return tuple(one.message for one in found if one.name not in shown)
