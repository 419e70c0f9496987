"""The options that change while an engine runs, and the queue of changes to them.

Socket threads submit changes; the engine's own thread applies them. Only plain numbers and strings
pass between them, under one lock that is never held during slow work. The engine's thread reads
one attribute, ``Tunables.attention``, and takes the lock only when it is set.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 1
HISTORY = 50  # with the limits below, an answer stays under the protocol's 64 KiB
NAME_LIMIT = 64
REASON_LIMIT = 200


def clean(text: str, limit: int) -> str:
    """The text as one printable line of at most ``limit`` characters, safe for terminals."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])


@dataclass
class TunableOption:
    """One option that this engine can change while it runs. value: in force now.

    cannot_evict: why running requests cannot be put back into the queue for it; None if they can,
    or if the option does not concern running requests. note: for the operator. choices: the names
    of the values 0, 1, ... of a choice. least_on: the smallest value above 0, if 0 switches the
    option off. parts: the divisor of the numbers for a fractional option; 100 for hundredths.
    """

    name: str
    launch: int
    minimum: int
    maximum: int
    applies: str
    note: str | None = None
    cannot_evict: str | None = None
    choices: tuple[str, ...] = ()
    least_on: int = 0
    parts: int = 1
    value: int = field(init=False)

    def __post_init__(self) -> None:
        self.value = self.launch

    def objection(self, to: object, evict: bool) -> str | None:
        """Why this value is refused, or None."""
        if not isinstance(to, int) or isinstance(to, bool):
            return "must be a whole number"
        if self.choices and not 0 <= to < len(self.choices):
            return f"must be the number of one of: {', '.join(self.choices)}"
        if not self.minimum <= to <= self.maximum:
            top = "the launch value" if self.maximum == self.launch else "what the engine can hold"
            return f"must lie between {self.minimum} and {self.maximum} ({top})"
        if 0 < to < self.least_on:
            return f"must be 0 (off) or at least {self.least_on}"
        if evict and self.cannot_evict:
            return f"cannot evict: {self.cannot_evict}"
        return None

    def described(self, pending: int | None = None) -> dict[str, Any]:
        """The option in the form of the ``get`` answer."""
        return {
            "value": self.value,
            "launch": self.launch,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "applies": self.applies,
            "pending": pending,
            "note": self.note,
            **({"choices": list(self.choices)} if self.choices else {}),
            **({"parts": self.parts} if self.parts > 1 else {}),
        }

    def words(self, value: int | None) -> str:
        """A value in the form for people, in a log."""
        named = self.choices and value is not None and 0 <= value < len(self.choices)
        if named and value is not None:
            return self.choices[value]
        return f"{value / self.parts:g}" if self.parts > 1 and value is not None else str(value)


@dataclass(eq=False)
class ChangeRequest:
    """An accepted change. The engine's thread sets evicted before it settles the change."""

    option: TunableOption
    to: int
    evict: bool
    by: str
    asked: float
    before: int
    outcome: str = "pending"
    reason: str | None = None
    evicted: int = 0

    def as_answer(self) -> dict[str, Any]:
        """The change in the form of the ``set`` answer."""
        return {
            "option": self.option.name,
            "from": self.before,
            "to": self.to,
            "outcome": self.outcome,
            "reason": self.reason,
            "evicted": self.evicted,
        }


class Tunables:
    """The options of one engine, the changes that wait for its next step, and the last results.

    counts: the present (running, waiting) requests, called from socket threads. rank: the
    data-parallel rank. wake: called on a socket thread when changes wait. It wakes a sleeping
    engine thread, or applies and settles the changes itself if no thread is needed.
    """

    def __init__(
        self,
        engine: str,
        version: str,
        pid: int,
        options: Sequence[TunableOption],
        counts: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.time,
        rank: int = 0,
    ) -> None:
        self.attention = False
        self.wake: Callable[[], None] = lambda: None
        self.disabled: str | None = None
        self._about = {"engine": engine, "version": version, "pid": pid, "rank": rank}
        self._options = {option.name: option for option in options}
        self._counts = counts
        self._clock = clock
        self._waiting: dict[str, ChangeRequest] = {}
        self._history: deque[ChangeRequest] = deque(maxlen=HISTORY)
        self._evicted = 0
        self._changed = threading.Condition()

    # Socket threads.

    def state(self) -> dict[str, Any]:
        """The answer to ``get``."""
        try:
            running, waiting = self._counts()
        except Exception:  # the engine's lists, read without its lock
            running = waiting = None  # type: ignore[assignment]
        with self._changed:
            options = {
                option.name: option.described(
                    self._waiting[option.name].to if option.name in self._waiting else None
                )
                for option in self._options.values()
            }
            history = [{"time": o.asked, "by": o.by, **o.as_answer()} for o in self._history]
            return {
                **self._about,
                "options": options,
                "running": running,
                "waiting": waiting,
                "evicted_total": self._evicted,
                "history": history,
                "disabled": self.disabled,
            }

    def words(self, name: str, value: int | None) -> str:
        """A value of the option ``name`` in the form for people, in a log."""
        option = self._options.get(name)
        return str(value) if option is None else option.words(value)

    def submit(
        self, changes: dict[str, Any], evict: bool, by: str, wait_s: float
    ) -> list[dict[str, Any]]:
        """Submit changes and wait at most ``wait_s`` for the engine's step. Returns the results."""
        results: list[dict[str, Any] | ChangeRequest] = []
        with self._changed:
            for name, to in changes.items():
                results.append(self._accept(name, to, evict, by))
            self.attention = self.attention or bool(self._waiting)
            mine = [change for change in results if isinstance(change, ChangeRequest)]
            if mine:
                self.wake()
            self._changed.wait_for(lambda: all(o.outcome != "pending" for o in mine), wait_s)
            return [
                item.as_answer() if isinstance(item, ChangeRequest) else item for item in results
            ]

    def _accept(self, name: str, to: Any, evict: bool, by: str) -> dict[str, Any] | ChangeRequest:
        option = self._options.get(name)
        if option is None:
            known = ", ".join(self._options) or "none"
            objection: str | None = f"not a live option of this engine; it has: {known}"
        elif self.disabled is not None:
            objection = f"live options are switched off: {self.disabled}"
        else:
            objection = option.objection(to, evict)
        if objection is not None or option is None:
            return {
                "option": clean(name, NAME_LIMIT),
                "from": option.value if option else None,
                "to": to if type(to) is int and abs(to) < 1 << 53 else None,
                "outcome": "refused",
                "reason": objection,
                "evicted": 0,
            }
        change = ChangeRequest(
            option, to, evict, clean(by, NAME_LIMIT), self._clock(), option.value
        )
        earlier = self._waiting.pop(name, None)
        if earlier is not None:
            self._refuse(earlier, "replaced by a later change before the engine's next step")
        self._waiting[name] = change
        self._history.append(change)
        return change

    # The engine's thread.

    def take(self) -> list[ChangeRequest]:
        """Take the waiting changes, oldest first; the caller must settle them."""
        with self._changed:
            changes = list(self._waiting.values())
            self._waiting.clear()
            return changes

    def settle(self, changes: Sequence[ChangeRequest], again: bool) -> None:
        """Mark changes as in force. again: the engine's thread needs a call at the next step."""
        with self._changed:
            for change in changes:
                change.before, change.option.value = change.option.value, change.to
                change.outcome = "applied"
                self._evicted += change.evicted
            self.attention = again or bool(self._waiting)
            self._changed.notify_all()

    def disable(self, reason: str, changes: Sequence[ChangeRequest] = ()) -> None:
        """Switch off permanently: restore launch values, refuse ``changes`` and waiting changes."""
        with self._changed:
            self.disabled = clean(reason, REASON_LIMIT)
            for option in self._options.values():
                option.value = option.launch
            for change in (*changes, *self._waiting.values()):
                self._refuse(change, self.disabled)
            self._waiting.clear()
            self.attention = False
            self._changed.notify_all()

    def _refuse(self, change: ChangeRequest, reason: str) -> None:
        change.outcome, change.reason = "refused", reason
        self._evicted += change.evicted  # it may have failed after some evictions
        self._changed.notify_all()
