"""The options that a hold sets, on each rank of its engine: what is in force, and where not yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.state.temporary_changes import Purpose


class Changer(Protocol):
    """The part of an ``EngineSession`` that is asked here. LlmtopError where no rank answers."""

    async def change(
        self, wanted: Mapping[str, OptionValue], *, purpose: Purpose | None = None
    ) -> tuple[Change, ...]:
        """Ask all ranks for changes."""

    async def values(self) -> Mapping[str, Sequence[OptionValue]]:
        """Options by name: the value on each rank, or the one that it is about to have. None: that
        rank does not answer."""


class RankLimits:
    """One value of each option for all ranks. A rank that was restarted, was silent or refused may
    have another one; then the value is asked for again until every rank has it.

    own: the operator's values. on_change: called with option, value before and after, and why.
    on_note: called with what cannot be set, and why, once for each reason.
    """

    def __init__(
        self,
        changer: Changer,
        own: Mapping[str, int],
        on_change: Callable[[str, int, int, str], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.own = dict(own)
        self.held = dict(own)  # asked for last, and in force on the ranks that took it
        self._changer = changer
        self._on_change, self._on_note = on_change, on_note
        self._uneven: set[str] = set()  # a rank may have another value of these than ``held``
        self._strays: dict[str, set[int]] = {}  # values of ours that a rank may have, or take late
        self._said: set[tuple[str, str | None]] = set()

    @property
    def left(self) -> dict[str, int]:
        """Options that are not the operator's on some rank, with the value there."""
        left = {n: value for n, value in self.held.items() if value != self.own[n]}
        for name in self._uneven - left.keys():
            others = self._strays.get(name, set()) - {self.own[name]}
            left |= {name: min(others)} if others else {}
        return left

    def doubt(self) -> None:
        """A rank may have come with values of its own."""
        self._uneven |= self.held.keys()

    async def adopt(self) -> None:
        """The values that are in force now are the operator's. LlmtopError without an answer."""
        values = await self._changer.values()
        for name in self.own:
            known = _known(values.get(name, ()))
            self.own[name] = min(known, default=self.own[name])
        self.held = dict(self.own)
        self._strays.clear()
        self.doubt()

    async def set(self, wanted: Mapping[str, int], why: str) -> bool:
        """Ask for what is not in force on every rank; whether it is now."""
        ask = {name: value for name, value in wanted.items() if value != self.held[name]}
        doubted = self._uneven & wanted.keys() - ask.keys()
        if doubted:
            values = await self._changer.values()
            for name in doubted:
                if set(values.get(name, ())) == {wanted[name]}:
                    self._uneven.discard(name)
                else:
                    ask[name] = wanted[name]
        if ask:
            before = frozenset(self._uneven)
            for name, value in ask.items():
                self._uneven.add(name)
                self._strays.setdefault(name, set()).add(value)
            purpose = Purpose("hold", dict(self.own))
            for change in await self._changer.change(ask, purpose=purpose):
                self._take(change, ask[change.option], why, before)
        return not self._uneven and all(self.held[n] == value for n, value in wanted.items())

    async def read(self) -> str:
        """See what is in force, and ask again where it is not. A value set by others stays and
        is the answer; "" for nothing."""
        values = await self._changer.values()
        for name, value in self.held.items():
            found = values.get(name, ())
            known = _known(found)
            if not known:
                continue
            if value not in known and not set(known) <= self._strays.get(name, set()):
                self.held[name] = self.own[name]  # it is not ours to put back
                self._uneven.discard(name)
                return f"another user or program has set {name} to {min(known)}"
            if any(other != value for other in found):
                self._uneven.add(name)
            else:
                self._uneven.discard(name)
                self._strays.pop(name, None)
        differ = {n for n in self._uneven if set(_known(values.get(n, ()))) != {self.held[n]}}
        if differ:
            await self.set({name: self.held[name] for name in differ}, "")
        return ""

    def _take(self, change: Change, asked: int, why: str, uneven: frozenset[str]) -> None:
        name, before = change.option, self.held[change.option]
        if change.outcome is Outcome.REFUSED:
            self._note(change, f"{name} stays {change.before}")
            if name not in uneven:
                self._uneven.discard(name)
            return
        # What is not yet in force has no value; an engine may round it.
        after = change.after if isinstance(change.after, int) else asked
        self.held[name] = after
        self._strays[name] |= {before, after}
        if change.outcome is not Outcome.PARTIAL:
            self._uneven.discard(name)
            self._said = {one for one in self._said if one[0] != name}
        elif any(part.outcome is Outcome.REFUSED for part in change.ranks):
            # That a rank is silent is an event of its own.
            self._note(change, f"{name} is not the same on all ranks")
        if after != before:
            self._on_change(name, before, after, why)

    def _note(self, change: Change, words: str) -> None:
        said = change.option, change.reason
        if said not in self._said:
            self._said.add(said)
            self._on_note(f"{words}: {change.reason}")


def _known(values: Sequence[OptionValue]) -> list[int]:
    return [value for value in values if type(value) is int]
