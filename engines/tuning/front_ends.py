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
        """The options of all front ends, {} without front ends. Never raises."""
        answers = await self._each(lambda live: live.get())
        states = {n: answer for n, answer in answers.items() if isinstance(answer, LiveState)}
        found: dict[str, LiveOption] = {}
        for name in dict.fromkeys(name for state in states.values() for name in state.options):
            reported = {n: s.options[name] for n, s in states.items() if name in s.options}
            found[name] = _merged(reported, silent=len(answers) - len(reported))
        self._offered = frozenset(found)
        return found

    async def offered(self) -> frozenset[str]:
        """The names of these options."""
        if not self._offered and front_end_sockets(self._path):
            await self.options()
        return self._offered

    async def set(
        self, changes: Mapping[str, int], by: str, wait_s: float
    ) -> dict[str, Change | LiveError]:
        """Request changes on all front ends; returns one outcome for each option."""
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
        """Cancel pending requests."""
        for live in self._clients.values():
            await live.close()

    async def _each(
        self, request: Callable[[Live], Awaitable[Answer]]
    ) -> dict[int, Answer | LiveError]:
        paths = {int(p.suffix.removeprefix(".")): p for p in front_end_sockets(self._path)}
        for number, path in paths.items():
            if number not in self._clients:
                self._clients[number] = self._client(path)
        answers = await asyncio.gather(*(_answer(request, self._clients[n]) for n in paths))
        found = dict(zip(paths, answers, strict=True))
        # A front end that has ended leaves its socket file.
        return {n: answer for n, answer in found.items() if not isinstance(answer, LiveGone)}


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
        for outcome in made.values():
            if isinstance(outcome, LiveError) and not done:
                raise outcome
        return tuple(_as_change(name, changes[name], outcomes[name], by) for name in changes)

    async def close(self) -> None:
        """Cancel pending requests; later requests fail."""
        await self._inner.close()
        await self._front_ends.close()


def _as_change(name: str, to: int, outcome: Change | LiveError, by: str) -> Change:
    if isinstance(outcome, Change):
        return outcome
    return Change(name, None, to, Outcome.REFUSED, outcome.message, by=by)


async def _answer(request: Callable[[Live], Awaitable[Answer]], live: Live) -> Answer | LiveError:
    try:
        return await request(live)
    except LiveError as error:
        return error


def _merged(reported: Mapping[int, LiveOption], silent: int) -> LiveOption:
    """Merge one option of the front ends. If they differ, the note shows each value."""
    first = next(iter(reported.values()))
    notes = [first.note]
    if silent:
        notes.append(f"{silent} of {silent + len(reported)} front ends do not answer")
    values = {one.value for one in reported.values()}
    if len(values) == 1:
        return replace(first, note="; ".join(filter(None, notes)))
    each = ", ".join(f"{one.value} on front end {number}" for number, one in reported.items())
    notes.append(f"the front ends differ: {each}")
    return replace(
        first,
        note="; ".join(filter(None, notes)),
        ranks=tuple(RankValue(number, one.value, one.pending) for number, one in reported.items()),
    )


def _outcome(each: Mapping[int, Change | LiveError]) -> Change | LiveError:
    """Merge the outcomes of the front ends. The reason names those that refused."""
    made = [one for one in each.values() if isinstance(one, Change)]
    if not made:
        return next(one for one in each.values() if isinstance(one, LiveError))
    if len(each) == 1:
        return made[0]
    outcome = merged_outcome(
        [one.outcome if isinstance(one, Change) else None for one in each.values()]
    )
    failed = {
        number: one.message if isinstance(one, LiveError) else one.reason
        for number, one in each.items()
        if isinstance(one, LiveError) or one.outcome is Outcome.REFUSED
    }
    reason = "; ".join(f"front end {number}: {why}" for number, why in failed.items()) or None
    return replace(made[0], outcome=outcome, reason=reason)
