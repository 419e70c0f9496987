"""Keeps the options that a hold sets equal on all ranks of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.state.temporary_changes import Purpose


class Changer(Protocol):
    """The part of an ``EngineSession`` that is used here. LlmtopError when no rank answers."""

    async def change(
        self, wanted: Mapping[str, OptionValue], *, purpose: Purpose | None = None
    ) -> tuple[Change, ...]:
        """Ask all ranks for changes."""

    async def values(self) -> Mapping[str, Sequence[OptionValue]]:
        """By option name: the value, or the pending one, on each rank. None: it does not answer."""


class RankLimits:
    """Sets one value of each option on all ranks.

    A rank that was restarted, silent or refused a change may have another value. The value is then
    set again until all ranks have it.

    own: the operator's values. held: the values that were set last. on_change: receives option, old
    and new value, and reason. on_note: receives a message about a value that cannot be set, once
    for each reason.
    """

    def __init__(
        self,
        changer: Changer,
        own: Mapping[str, int],
        on_change: Callable[[str, int, int, str], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.own = dict(own)
        self.held = dict(own)
        self._changer = changer
        self._on_change, self._on_note = on_change, on_note
        self._uneven: set[str] = set()  # options of which a rank may have another value than held
        # Values that this hold has set earlier, and that a rank may still have or apply late.
        self._strays: dict[str, set[int]] = {}
        self._noted: set[tuple[str, str | None]] = set()

    @property
    def left(self) -> dict[str, int]:
        """Options that do not have the operator's value on some rank, with the value there."""
        left = {n: value for n, value in self.held.items() if value != self.own[n]}
        for name in self._uneven - left.keys():
            others = self._strays.get(name, set()) - {self.own[name]}
            left |= {name: min(others)} if others else {}
        return left

    def doubt(self) -> None:
        """Check all values again: a new or restarted rank may have others."""
        self._uneven |= self.held.keys()

    async def adopt(self) -> None:
        """Take the values in force as the operator's. LlmtopError when no rank answers."""
        values = await self._changer.values()
        for name in self.own:
            known = _known(values.get(name, ()))
            self.own[name] = min(known, default=self.own[name])
        self.held = dict(self.own)
        self._strays.clear()
        self.doubt()

    async def set(self, wanted: Mapping[str, int], why: str) -> bool:
        """Set the values that are not in force on all ranks. Returns whether all are in force now.

        why: reason for the list of actions. Raises LlmtopError when no rank answers.
        """
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
        """Read the values in force, and set them again on ranks with other ones.

        Returns a message if another user or program has set a value, which is kept; else "".
        """
        values = await self._changer.values()
        for name, value in self.held.items():
            found = values.get(name, ())
            known = _known(found)
            if not known:
                continue
            if value not in known and not set(known) <= self._strays.get(name, set()):
                self.held[name] = self.own[name]  # the other program's value must not be replaced
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
            self._note(change, f"{name} stays {before if change.before is None else change.before}")
            if name not in uneven:
                self._uneven.discard(name)
            return
        # The engine may round a value. A pending change has no value yet.
        after = change.after if isinstance(change.after, int) else asked
        self.held[name] = after
        self._strays[name] |= {before, after}
        if change.outcome is not Outcome.PARTIAL:
            self._uneven.discard(name)
            self._noted = {one for one in self._noted if one[0] != name}
        elif any(part.outcome is Outcome.REFUSED for part in change.ranks):
            # Only for a refusal: a silent rank is reported elsewhere.
            self._note(change, f"{name} is not the same on all ranks")
        if after != before:
            self._on_change(name, before, after, why)

    def _note(self, change: Change, words: str) -> None:
        key = change.option, change.reason
        if key not in self._noted:
            self._noted.add(key)
            self._on_note(f"{words}: {change.reason}")


def _known(values: Sequence[OptionValue]) -> list[int]:
    return [value for value in values if type(value) is int]
