"""Marks: the times of changes."""

from __future__ import annotations

from msgspec import Struct


class Mark(Struct, frozen=True):
    """The time of a change. The charts show it as a line with its label.

    time: when the change was applied, unix seconds. load: a key changed the load. effect: an option
    changed, so its effect will be reported. since: the end of the time before the change, if that
    is not ``time`` (a restart).
    """

    time: float
    label: str
    effect: bool = False
    since: float | None = None
    load: bool = False
