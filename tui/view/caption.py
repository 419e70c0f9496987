"""The caption of a tour scene, as plain text."""

from __future__ import annotations

from msgspec import Struct


class Caption(Struct, frozen=True):
    """A caption: a title, a sentence, and the completed share of the tour (0 to 1)."""

    title: str
    words: str
    share: float = 0.0
