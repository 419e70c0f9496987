"""Events: the lines of the event list."""

from __future__ import annotations

from msgspec import Struct


class Event(Struct, frozen=True):
    """One line of the event list. level: info, change, effect, state, warning or error.

    time: unix seconds. text: already cleaned for display. parts: the same text in pieces, for a
    list that is too narrow for one line.
    """

    time: float
    level: str
    text: str
    parts: tuple[str, ...] = ()
