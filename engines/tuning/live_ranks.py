"""The live-option client of an engine with one or several data-parallel ranks.

In vLLM each data-parallel rank is a process with its own scheduler and live-option socket: rank 0
at the plain path, rank N at the path with the suffix ``.N``. Ranks can appear and disappear, so
each request searches for the sockets. A change goes to all ranks at the same time, and their
answers are combined. With one rank this is a plain ``LiveClient``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from llmtop.engines.core.adapter import Live
from llmtop.engines.core.live_protocol import LiveError, LiveGone, LiveState
from llmtop.engines.core.options import Change
from llmtop.engines.host.rank_sockets import rank_sockets, socket_of
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.rank_merge import merged_change, merged_state, no_answer_error
from llmtop.values import replace

Answer = TypeVar("Answer")


class RankedLive:
    """All ranks of one engine, as one ``Live``. Raises LiveError only when no rank answers.

    path: the socket of rank 0. expected: the ranks that the engine was started with, () if its
    arguments do not say; others are found by their sockets. client: opens one rank's socket.
    """

    def __init__(
        self,
        path: str | Path,
        expected: Sequence[int] = (),
        client: Callable[[Path], Live] = LiveClient,
    ) -> None:
        self._path = Path(path)
        self._expected = tuple(expected)
        self._client = client
        self._clients: dict[int, Live] = {}
        self._evicted: dict[int, int] = {}  # last report by rank

    async def get(self) -> LiveState:
        """The options that the engine can change, with the values in force on each rank."""
        answers = await self._each(lambda live: live.get())
        state = merged_state(answers)
        for rank, answer in answers.items():
            if isinstance(answer, LiveState):
                self._evicted[rank] = answer.evicted_total
        # For a silent rank the last count is used, so that the sum does not decrease.
        silent = [rank for rank, answer in answers.items() if isinstance(answer, LiveError)]
        missing = sum(self._evicted.get(rank, 0) for rank in silent)
        return replace(state, evicted_total=state.evicted_total + missing) if missing else state

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Send to all ranks at once; one ``Change`` for each option, in the order given."""
        if not changes:
            return ()
        answers = await self._each(
            lambda live: live.set(changes, evict=evict, by=by, wait_s=wait_s)
        )
        if not any(isinstance(answer, tuple) for answer in answers.values()):
            raise no_answer_error(answers)
        answers = {rank: _may_apply_later(answer) for rank, answer in answers.items()}
        return tuple(
            merged_change(
                name,
                to,
                {
                    rank: answer if isinstance(answer, LiveError) else answer[at]
                    for rank, answer in answers.items()
                },
            )
            for at, (name, to) in enumerate(changes.items())
        )

    async def close(self) -> None:
        """Cancel pending requests; later requests fail."""
        for live in self._opened(self._ranks()).values():
            await live.close()

    async def _each(
        self, request: Callable[[Live], Awaitable[Answer]]
    ) -> dict[int, Answer | LiveError]:
        lives = self._opened(self._ranks())
        answers = await asyncio.gather(*(_answer(request, live) for live in lives.values()))
        found = dict(zip(lives, answers, strict=True))
        # A rank that was removed at run time leaves its socket file: ignore it. Report a missing
        # rank that was started with the engine.
        present = {
            rank: answer
            for rank, answer in found.items()
            if rank in self._expected or not isinstance(answer, LiveGone)
        }
        return present or found

    def _ranks(self) -> list[int]:
        """The expected ranks and those with a socket; rank 0 if there are none."""
        return sorted({*self._expected, *rank_sockets(self._path)}) or [0]

    def _opened(self, ranks: Sequence[int]) -> dict[int, Live]:
        for rank in ranks:
            if rank not in self._clients:
                self._clients[rank] = self._client(socket_of(self._path, rank))
        return {rank: self._clients[rank] for rank in ranks}


def _may_apply_later(answer: Answer | LiveError) -> Answer | LiveError:
    """A stopped rank keeps the request in its socket and reads it when it continues."""
    if isinstance(answer, LiveError) and not isinstance(answer, LiveGone):
        return LiveError(f"{answer.message}; it may apply the change later", answer.hint)
    return answer


async def _answer(request: Callable[[Live], Awaitable[Answer]], live: Live) -> Answer | LiveError:
    # The task creates the coroutine. So a task that is cancelled early leaves none unawaited.
    try:
        return await request(live)
    except LiveError as error:
        return error
