"""Options of an engine's front ends: read from each, set on all, reported as one.

A front end is a process of the HTTP server. vLLM has one or several (``--api-server-count``), each
with its own live-option socket. They can appear and disappear, so each request searches for the
sockets again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from llmtop.engines.core.adapter import Live
from llmtop.engines.core.live_protocol import LiveError, LiveGone, LiveOption, LiveState
from llmtop.engines.core.options import Change, Outcome, RankValue
from llmtop.engines.host.rank_sockets import front_end_sockets
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.rank_merge import merged_outcome
from llmtop.values import replace

Answer = TypeVar("Answer")


class FrontEnds:
    """All front ends of one engine. path: the socket of rank 0. client: opens one socket."""

    def __init__(self, path: Path, client: Callable[[Path], Live]) -> None:
        self._path = path
        self._client = client
        self._clients: dict[int, Live] = {}
        self._offered: frozenset[str] = frozenset()

    async def options(self) -> dict[str, LiveOption]:
        """Their options, {} without front ends. Never raises."""
        answers = await self._each(lambda live: live.get())
        states = {n: told for n, told in answers.items() if isinstance(told, LiveState)}
        found: dict[str, LiveOption] = {}
        for name in dict.fromkeys(name for state in states.values() for name in state.options):
            told = {n: s.options[name] for n, s in states.items() if name in s.options}
            found[name] = _merged(told, silent=len(answers) - len(told))
        self._offered = frozenset(found)
        return found

    async def offered(self) -> frozenset[str]:
        """The names of their options."""
        if not self._offered and front_end_sockets(self._path):
            await self.options()
        return self._offered

    async def set(
        self, changes: Mapping[str, int], by: str, wait_s: float
    ) -> dict[str, Change | LiveError]:
        """Request changes on all of them; one outcome for each option."""
        answers = await self._each(lambda live: live.set(changes, by=by, wait_s=wait_s))
        if not answers:
            gone = LiveGone("the engine's front ends are gone")
            return dict.fromkeys(changes, gone)
        outcomes: dict[str, Change | LiveError] = {}
        for at, name in enumerate(changes):
            each = {n: t if isinstance(t, LiveError) else t[at] for n, t in answers.items()}
            outcomes[name] = _outcome(each)
        return outcomes

    async def close(self) -> None:
        """Cancel pending calls."""
        for live in self._clients.values():
            await live.close()

    async def _each(
        self, ask: Callable[[Live], Awaitable[Answer]]
    ) -> dict[int, Answer | LiveError]:
        paths = {int(p.suffix.removeprefix(".")): p for p in front_end_sockets(self._path)}
        for number, path in paths.items():
            if number not in self._clients:
                self._clients[number] = self._client(path)
        answers = await asyncio.gather(*(_answer(ask, self._clients[n]) for n in paths))
        found = dict(zip(paths, answers, strict=True))
        # An ended front end leaves its socket behind.
        return {n: told for n, told in found.items() if not isinstance(told, LiveGone)}


class WithFrontEnds:
    """Combines a ``Live`` with the front ends of the same engine, which hold some options.

    inner: the ranks, by socket or HTTP. path: the socket of rank 0. client: opens one socket.
    """

    def __init__(
        self, inner: Live, path: str | Path, client: Callable[[Path], Live] = LiveClient
    ) -> None:
        self._inner = inner
        self._front_ends = FrontEnds(Path(path), client)

    async def get(self) -> LiveState:
        """The options that the engine can change, with the values in force."""
        state, in_front = await asyncio.gather(self._inner.get(), self._front_ends.options())
        return replace(state, options={**state.options, **in_front}) if in_front else state

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Request changes. Returns one ``Change`` for each, in the order given."""
        offered = await self._front_ends.offered() if changes else frozenset()
        in_front = {name: to for name, to in changes.items() if name in offered}
        inside = {name: to for name, to in changes.items() if name not in offered}
        if not in_front:
            return await self._inner.set(inside, evict=evict, by=by, wait_s=wait_s)
        made = await self._front_ends.set(in_front, by, wait_s)
        done = await self._inner.set(inside, evict=evict, by=by, wait_s=wait_s) if inside else ()
        outcomes = {**made, **{change.option: change for change in done}}
        for told in made.values():
            if isinstance(told, LiveError) and not done:
                raise told
        return tuple(_known(name, changes[name], outcomes[name], by) for name in changes)

    async def close(self) -> None:
        """Cancel pending requests; later requests fail."""
        await self._inner.close()
        await self._front_ends.close()


def _known(name: str, to: int, told: Change | LiveError, by: str) -> Change:
    if isinstance(told, Change):
        return told
    return Change(name, None, to, Outcome.REFUSED, told.message, by=by)


async def _answer(ask: Callable[[Live], Awaitable[Answer]], live: Live) -> Answer | LiveError:
    try:
        return await ask(live)
    except LiveError as error:
        return error


def _merged(told: Mapping[int, LiveOption], silent: int) -> LiveOption:
    """One option from those of the front ends. If they differ, each value is shown."""
    first = next(iter(told.values()))
    notes = [first.note]
    if silent:
        notes.append(f"{silent} of {silent + len(told)} front ends do not answer")
    values = {one.value for one in told.values()}
    if len(values) == 1:
        return replace(first, note="; ".join(filter(None, notes)))
    each = ", ".join(f"{one.value} on front end {number}" for number, one in told.items())
    notes.append(f"the front ends differ: {each}")
    return replace(
        first,
        note="; ".join(filter(None, notes)),
        ranks=tuple(RankValue(number, one.value, one.pending) for number, one in told.items()),
    )


def _outcome(each: Mapping[int, Change | LiveError]) -> Change | LiveError:
    """One outcome from those of the front ends; it names those that refused."""
    made = [told for told in each.values() if isinstance(told, Change)]
    if not made:
        return next(told for told in each.values() if isinstance(told, LiveError))
    if len(each) == 1:
        return made[0]
    outcome = merged_outcome(
        [told.outcome if isinstance(told, Change) else None for told in each.values()]
    )
    bad = {
        number: told.message if isinstance(told, LiveError) else told.reason
        for number, told in each.items()
        if isinstance(told, LiveError) or told.outcome is Outcome.REFUSED
    }
    reason = "; ".join(f"front end {number}: {why}" for number, why in bad.items()) or None
    return replace(made[0], outcome=outcome, reason=reason)
