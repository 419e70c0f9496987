"""Internal data of an engine: all its data-parallel ranks and front ends, combined."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.live_protocol import LiveError, LiveGone
from llmtop.engines.core.requests import Aborted, RequestSort, RequestTable
from llmtop.engines.core.steps import Steps
from llmtop.engines.host.rank_sockets import front_end_sockets, rank_sockets, socket_of
from llmtop.engines.introspection import merge
from llmtop.engines.introspection.errors import NotShown
from llmtop.engines.introspection.process_inside import ProcessInside
from llmtop.engines.introspection.step_rows import MOST_ROWS
from llmtop.engines.tuning.live_exchange import TIMEOUT_S

MOST_IDS = 256  # in one abort

Answer = TypeVar("Answer")


class Abilities(NamedTuple):
    """The internal data that an engine can show. missing: the rest, with reasons."""

    abilities: frozenset[str]
    missing: Mapping[str, str]
    ranks: int
    front_ends: int


class EngineInside:
    """Reads one engine. Raises LiveError only when no rank answers.

    Each reader of steps needs its own instance: ``steps`` remembers the steps that it returned.

    path: the socket of rank 0. expected: the ranks that the engine was started with, () if its
    arguments do not say. Ranks and front ends appear and disappear, so each call searches for their
    sockets. wall: unix seconds. timeout_s: time limit of an answer.
    """

    def __init__(
        self,
        path: str | Path,
        expected: Sequence[int] = (),
        wall: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._path = Path(path)
        self._expected = tuple(expected)
        self._wall = wall
        self._timeout_s = timeout_s
        self._known: dict[Path, ProcessInside] = {}

    async def abilities(self) -> Abilities:
        """The abilities of at least one process."""
        ranks, fronts = await asyncio.gather(
            self._ranks(lambda one: one.about()), self._fronts(lambda one: one.about())
        )
        answered = merge.require(ranks)
        reports = [*answered.values(), *merge.answered(fronts).values()]
        found = frozenset(name for one in reports for name in one.abilities)
        missing = {name: text for one in reports for name, text in one.missing.items()}
        if not merge.answered(fronts) and "abort" in missing:
            missing["abort"] += f"; {merge.NO_FRONT_END}"
        missing = {name: text for name, text in missing.items() if name not in found}
        return Abilities(
            found, {**missing, **merge.silent(ranks)}, len(answered), len(merge.answered(fronts))
        )

    async def steps(self, newest: int = MOST_ROWS) -> Steps:
        """The steps since the last call; the first call returns the ``newest`` of each rank."""
        answers = await self._ranks(lambda one: one.steps(newest))
        return merge.steps(answers, self._wall())

    async def latencies(self) -> Latencies:
        """All latencies since the engine started; front ends provide those that they measure."""
        ranks, fronts = await asyncio.gather(
            self._ranks(lambda one: one.latencies()), self._fronts(lambda one: one.latencies())
        )
        return merge.latencies(ranks, fronts, self._wall())

    async def requests(
        self, sort: RequestSort = "age", limit: int = 50, ids: Sequence[str] = ()
    ) -> RequestTable:
        """The requests of all ranks, the largest first."""
        answers = await self._ranks(lambda one: one.requests(sort, limit, ids))
        return merge.requests(answers, sort, limit)

    async def abort(self, ids: Sequence[str], by: str, reason: str = "") -> Aborted:
        """End requests by their exact ids, at most 256.

        Front ends come first: their aborts do not distort the engine's metrics.
        """
        wanted = tuple(dict.fromkeys(ids))[:MOST_IDS]
        answers = await self._fronts(lambda one: one.abort(wanted, by, reason))
        # Where the ranks abort, front ends do not.
        answers = {n: one for n, one in answers.items() if not isinstance(one, NotShown)}
        fronts = merge.answered(answers)
        done = {ident for one in fronts.values() for ident in one.aborted}
        left = tuple(ident for ident in wanted if ident not in done)
        ranks: dict[str, Aborted | LiveError] = {}
        if left:
            ranks = await self._ranks(lambda one: one.abort(left, by, reason))
            if not fronts:
                merge.require(ranks)
            # Where the front ends abort, ranks do not. A request in no front end has ended.
            ranks = {n: one for n, one in ranks.items() if not isinstance(one, NotShown)}
        return merge.aborted(wanted, {**answers, **ranks})

    def close(self) -> None:
        """Cancel pending calls; later calls fail."""
        for one in self._known.values():
            one.close()

    async def _ranks(
        self, ask: Callable[[ProcessInside], Awaitable[Answer]]
    ) -> dict[str, Answer | LiveError]:
        numbers = sorted({*self._expected, *rank_sockets(self._path)}) or [0]
        answers = await self._each(
            ask, {f"rank {rank}": (socket_of(self._path, rank), rank) for rank in numbers}
        )
        # A rank that was removed at run time leaves its socket behind.
        expected = {f"rank {rank}" for rank in self._expected}
        left = {
            name: one
            for name, one in answers.items()
            if name in expected or not isinstance(one, LiveGone)
        }
        return left or answers

    async def _fronts(
        self, ask: Callable[[ProcessInside], Awaitable[Answer]]
    ) -> dict[str, Answer | LiveError]:
        paths = front_end_sockets(self._path)
        answers = await self._each(
            ask, {f"front end {number}": (path, 0) for number, path in enumerate(paths)}
        )
        return {name: one for name, one in answers.items() if not isinstance(one, LiveGone)}

    async def _each(
        self,
        ask: Callable[[ProcessInside], Awaitable[Answer]],
        sockets: Mapping[str, tuple[Path, int]],
    ) -> dict[str, Answer | LiveError]:
        for path, rank in sockets.values():
            if path not in self._known:
                self._known[path] = ProcessInside(path, rank, self._timeout_s)
        answers = await asyncio.gather(
            *(_answer(ask, self._known[path]) for path, _ in sockets.values())
        )
        return dict(zip(sockets, answers, strict=True))


async def _answer(
    ask: Callable[[ProcessInside], Awaitable[Answer]], one: ProcessInside
) -> Answer | LiveError:
    try:
        return await ask(one)
    except LiveError as error:
        return error
