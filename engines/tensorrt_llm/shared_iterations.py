"""What the one reader of the iterations lets the other llmtops of its user know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from llmtop.engines.core.samples import Counter
from llmtop.engines.core.steps import COLUMNS, Step
from llmtop.engines.tensorrt_llm.iteration_stats import Occupancy

FRESH_S = 10.0  # the reader may show its numbers every few seconds only
MOST_STEPS = 1024
Row = tuple[int | float | None, ...]


class SharedIterations(Struct, frozen=True):
    """Numbers of the queue at one moment, and the steps of the last seconds.

    reader: who read them; its counters begin with it. elapsed: CLOCK_MONOTONIC, in seconds, which
    all processes of the machine share. counters: by their names. rows: of each step its columns
    and its rank.
    """

    reader: str
    elapsed: float
    occupancy: Occupancy
    counters: Mapping[str, float]
    rows: tuple[Row, ...] = ()

    def totals(self) -> dict[Counter, float]:
        """The counters that this version knows."""
        return {one: self.counters[one] for one in Counter if one in self.counters}

    def steps(self) -> list[Step]:
        """The steps, oldest first; none of a version with other columns."""
        return [Step(*row) for row in self.rows if len(row) == len(COLUMNS) + 1]  # type: ignore[arg-type]


_decode = msgspec.json.Decoder(SharedIterations).decode


def rows_of(steps: Sequence[Step]) -> tuple[Row, ...]:
    """The newest steps as they are shared."""
    names = (*COLUMNS, "rank")
    return tuple(tuple(getattr(step, name) for name in names) for step in steps[-MOST_STEPS:])


def encode(found: SharedIterations) -> bytes:
    """As the lock file holds it."""
    return msgspec.json.encode(found)


def decode(data: bytes, elapsed: float) -> SharedIterations | None:
    """What was published; None when it is none, or not of the last seconds before ``elapsed``."""
    try:
        found = _decode(data)
    except (ValueError, RecursionError):
        return None
    return found if 0 <= elapsed - found.elapsed <= FRESH_S else None
