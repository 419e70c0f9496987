"""The scheduler's steps for a recording: from the screen, else read from the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.steps import COLUMNS, COUNTS, NEEDED, Step
from llmtop.history.facts import StepsFact
from llmtop.tui.store.store import newer

if TYPE_CHECKING:
    from llmtop.diagnosis.steps.history import StepHistory
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.tui.store.store import EngineTrack

Inside = Callable[[str], "EngineInside | None"]
SHOWN_S = 30.0  # of steps from before the recording: the screen showed them at its start
WRITTEN = tuple(name for name in COLUMNS if name != "seq")  # a reader numbers the steps itself
_PARTS = frozenset(("schedule_s", "update_s", "launch_s"))  # no chart shows them


class StepFacts:
    """Collects the steps of all engines.

    inside: opens the connection to an engine, by its name; None if the engine shows no steps.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._known: dict[str, EngineInside | None] = {}
        self._seen: dict[str, tuple[Step | None, int]] = {}  # last step written; steps lost

    async def of(self, track: EngineTrack, now: float) -> list[StepsFact]:
        """The steps of an engine since the last call; at the first call, those on the screen."""
        if track.steps is not None:
            return self._from_screen(track.name, track.steps, now)
        if track.name in self._seen:
            return []  # the engine is restarting
        return await self._from_engine(track.name, now)

    def _from_screen(self, name: str, history: StepHistory, now: float) -> list[StepsFact]:
        last = history.steps[-1] if history.steps else None
        before = self._seen.get(name)
        self._seen[name] = last, history.lost
        if before is not None and last is before[0]:
            return []
        read = history.time - now if history.time is not None else 0.0
        if before is None:
            return list(facts_of(name, history.since(now + read - SHOWN_S), 0, now, read))
        lost = max(0, history.lost - before[1])
        return list(facts_of(name, newer(history.steps, before[0]), lost, now, read))

    async def _from_engine(self, name: str, now: float) -> list[StepsFact]:
        first = name not in self._known
        if first:
            self._known[name] = self._inside(name)
        inside = self._known[name]
        if inside is None:
            return []
        try:
            found = await inside.steps(1) if first else await inside.steps()
        except LlmtopError:
            return []  # an older plugin, or a busy engine: its steps are not recorded
        return [] if first else list(facts_of(name, found.steps, found.lost, now, found.time - now))


def facts_of(
    name: str, steps: Sequence[Step], lost: int, now: float, read: float
) -> Iterator[StepsFact]:
    """The steps of each rank as columns. ``end`` is in seconds relative to ``now``.

    lost: steps that could not be read; the first fact reports them. now: unix seconds. read: when
    the steps were read, in seconds relative to ``now``.
    """
    for rank in sorted({step.rank for step in steps}):
        mine = [step for step in steps if step.rank == rank]
        columns: dict[str, tuple[float | None, ...]] = {}
        for column in WRITTEN:
            values = tuple(rounded(column, getattr(step, column), now) for step in mine)
            if any(value is not None for value in values):
                columns[column] = values
        yield StepsFact(now, name, columns, rank, lost, round(read, 4))
        lost = 0  # counted once


def steps_of(fact: StepsFact, first: int) -> list[Step]:
    """The steps of a fact, numbered from ``first``; none if a required column is missing."""
    count = max(map(len, fact.columns.values()), default=0)
    columns: list[Sequence[float | None]] = []
    for name in WRITTEN:
        found = fact.columns.get(name)
        if name in NEEDED and (found is None or None in found):
            return []
        if found is None:
            columns.append([None] * count)
        elif name == "end":
            columns.append([fact.time + (one or 0.0) for one in found])
        elif name in COUNTS:
            columns.append([None if one is None else int(one) for one in found])
        else:
            columns.append(found)
    numbered = enumerate(zip(*columns, strict=True), first)
    make: Callable[..., Step] = Step
    return [make(number, *row, fact.rank) for number, row in numbered]


def rounded(column: str, value: float | None, now: float) -> float | None:
    """Round to a microsecond, so that a replayed chart equals the live one.

    ``end``, and columns that no chart shows, are rounded more coarsely. Otherwise an hour at 170
    steps a second would exceed 10 MB.
    """
    if value is None:
        return None
    if column == "end":
        return round(value - now, 5)
    if column in COUNTS:
        return value
    return round(value, 4 if column in _PARTS else 6)
