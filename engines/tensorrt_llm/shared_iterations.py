"""The numbers that the only reader of the iterations shares with the user's other llmtops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from llmtop.engines.core.samples import Counter
from llmtop.engines.core.steps import COLUMNS, Step
from llmtop.engines.tensorrt_llm.iteration_stats import Occupancy

FRESH_S = 10.0  # maximum age; the reader may publish only every few seconds
MOST_STEPS = 1024
Row = tuple[int | float | None, ...]


class SharedIterations(Struct, frozen=True):
    """Numbers from the queue at one moment, and the steps of the last seconds.

    reader: identifies the reader; its counters start at its first read. elapsed: CLOCK_MONOTONIC in
    seconds, the same in all processes of the machine. counters: by name. rows: for each step its
    ``COLUMNS`` and its rank.
    """

    reader: str
    elapsed: float
    occupancy: Occupancy
    counters: Mapping[str, float]
    rows: tuple[Row, ...] = ()

    def totals(self) -> dict[Counter, float]:
        """The counters that this version of llmtop knows."""
        return {one: self.counters[one] for one in Counter if one in self.counters}

    def steps(self) -> list[Step]:
        """The steps, oldest first; [] from a version of llmtop with other columns."""
        return [Step(*row) for row in self.rows if len(row) == len(COLUMNS) + 1]  # type: ignore[arg-type]


_decode = msgspec.json.Decoder(SharedIterations).decode


def rows_of(steps: Sequence[Step]) -> tuple[Row, ...]:
    """The newest ``MOST_STEPS`` steps as rows."""
    names = (*COLUMNS, "rank")
    return tuple(tuple(getattr(step, name) for name in names) for step in steps[-MOST_STEPS:])


def encode(found: SharedIterations) -> bytes:
    """The content of the lock file."""
    return msgspec.json.encode(found)


def decode(data: bytes, elapsed: float) -> SharedIterations | None:
    """The published numbers; None if they are invalid or older than ``FRESH_S`` at ``elapsed``."""
    try:
        found = _decode(data)
    except (ValueError, RecursionError):
        return None
    return found if 0 <= elapsed - found.elapsed <= FRESH_S else None
