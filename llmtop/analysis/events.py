"""Events: the lines of the event list."""

from __future__ import annotations

from msgspec import Struct


class Event(Struct, frozen=True):
    """One line of the event list. level: info, change, effect, state, warning or
    error.

    text is already clean. parts: the same text in pieces, for a list too narrow for one line.
    """

    time: float
    level: str
    text: str
    parts: tuple[str, ...] = ()
