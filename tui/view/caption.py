"""What a tour says of what is seen; plain text, so that the tour needs no drawing."""

from __future__ import annotations

from msgspec import Struct


class Caption(Struct, frozen=True):
    """What a tour says of what is seen: a few words, a sentence, and how far it has come (0..1)."""

    title: str
    words: str
    share: float = 0.0
