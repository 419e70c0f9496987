"""Marks: the moments at which something was changed."""

from __future__ import annotations

from msgspec import Struct


class Mark(Struct, frozen=True):
    """A moment at which something was changed: a line through every chart, its words below.

    load: the load was changed, by a key. effect: an option changed, so what it did will be told.
    since: when what was before came to an end, where that was not the same moment (a restart).
    """

    time: float
    label: str
    effect: bool = False
    since: float | None = None
    load: bool = False
