"""Internal data of one engine process, a scheduler or a front end, over its socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llmtop.engines.core.live_protocol import LiveError, nonsense, text_of, understood
from llmtop.engines.core.requests import Aborted, RequestTable
from llmtop.engines.core.steps import Step
from llmtop.engines.introspection import answers
from llmtop.engines.introspection.errors import NotShown, OlderPlugin
from llmtop.engines.introspection.step_rows import MOST_ROWS, StepRows, step_rows
from llmtop.engines.tuning.live_exchange import TIMEOUT_S, LiveExchange

PROTOCOL = 2
ANSWER_LIMIT = 4 << 20  # bytes: twice the protocol's limit
# More rows at once delay the engine's other threads: 1,024 rows take half a millisecond.
ROWS = 1024
MOST_EXCHANGES = 20  # for one reading: a whole ring of 16,384 steps

Told = TypeVar("Told")


class NewSteps(NamedTuple):
    """The steps since the last reading. restarted: the numbers began again."""

    steps: tuple[Step, ...]
    lost: int
    restarted: bool
    missing: Mapping[str, str]
    rank: int = 0


class ProcessInside:
    """Reads one socket and remembers which steps it has read. Every failure raises LiveError.

    rank: of the process; the rank in its answers is not trusted.
    timeout_s: time limit of an answer.
    """

    def __init__(self, path: Path, rank: int = 0, timeout_s: float = TIMEOUT_S) -> None:
        self._exchange = LiveExchange(path, answer_limit=ANSWER_LIMIT)
        self._rank = rank
        self._timeout_s = timeout_s
        self._boot: str | None = None
        self._since: int | None = None
        self._skipped = 0  # steps that could not be read

    async def about(self) -> answers.About:
        """Its abilities."""
        return await self._ask({"op": "get"}, answers.about)

    async def steps(self, newest: int = MOST_ROWS) -> NewSteps:
        """The steps since the last reading; the first one returns the ``newest``."""
        first = self._since is None
        found: list[Step] = []
        lost = 0
        restarted = False
        missing: Mapping[str, str] = {}
        for _ in range(MOST_EXCHANGES):
            rows = await self._step_rows(newest)
            missing = rows.missing
            if self._boot is not None and rows.boot != self._boot:
                self._boot, self._since = rows.boot, 0
                found, lost, restarted = [], 0, True
                continue
            self._boot = rows.boot
            found.extend(rows.steps)
            lost += rows.lost + self._skipped
            self._skipped = 0
            self._since = rows.steps[-1].seq if rows.steps else max(rows.next - 1, 0)
            if first or rows.next - 1 <= self._since:
                break
        return NewSteps(tuple(found), lost, restarted, missing, self._rank)

    async def _step_rows(self, newest: int) -> StepRows:
        since = self._since
        limit = ROWS if since is not None else min(max(newest, 1), MOST_ROWS)
        request = {"op": "steps", "since": since, "limit": limit}

        def read(answer: Mapping[str, Any]) -> StepRows:
            try:
                return step_rows(answer, since, self._rank)
            except (ValueError, TypeError, KeyError):
                self._skip(answer.get("next"))
                raise

        return await self._ask(request, read)

    def _skip(self, number: object) -> None:
        """Skip an invalid step, so that the next reading returns the steps after it."""
        if type(number) is int and 0 < number < 1 << 53:
            since, self._since = self._since, number - 1
            self._skipped += max(0, self._since - (self._since if since is None else since))

    async def latencies(self) -> answers.RankLatencies:
        """Its histograms since it started."""
        return await self._ask({"op": "latencies"}, answers.latencies)

    async def requests(self, sort: str, limit: int, ids: Sequence[str] = ()) -> RequestTable:
        """Its requests, at most ``limit`` rows."""
        request: dict[str, Any] = {"op": "requests", "sort": sort, "limit": limit}
        if ids:
            request["ids"] = list(ids)
        return await self._ask(request, lambda answer: answers.requests(answer, self._rank))

    async def abort(self, ids: Sequence[str], by: str, reason: str) -> Aborted:
        """End requests."""
        request = {"op": "abort", "ids": list(ids), "by": by, "reason": reason}
        return await self._ask(request, answers.aborted)

    def close(self) -> None:
        """Cancel pending calls."""
        self._exchange.close()

    async def _ask(
        self, request: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Told]
    ) -> Told:
        answer, _ = await self._exchange.ask({**request, "protocol": PROTOCOL}, self._timeout_s)
        protocol = answer.get("protocol")
        if protocol == 1:
            raise OlderPlugin
        if protocol != PROTOCOL:
            raise nonsense("another protocol version")
        if answer.get("ok") is not True:
            raise _refusal(answer)
        return understood(read, answer)


def _refusal(answer: Mapping[str, Any]) -> LiveError:
    error, ability = answer.get("error"), answer.get("missing")
    text = text_of(error) if isinstance(error, str) else "no reason given"
    if isinstance(ability, str):
        return NotShown(f"the engine cannot do this: {text}", text_of(ability))
    return LiveError(f"the engine refused the request: {text}")
