"""Protocols between app and screens: typed text, and the keys at the top of the help."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from textual.events import Key

from llmtop.config.key_table import Place


@runtime_checkable
class TypedAhead(Protocol):
    """A screen that may get keys that were read before it existed.

    Textual sends a key to the top screen at the time of reading, and looks bindings up later. In a
    burst, characters after the key that opens a text field would trigger other keys.
    """

    async def typed_ahead(self, event: Key) -> bool:
        """Accept the key as typed text; False if it is not."""


@runtime_checkable
class Helped(Protocol):
    """A screen that names its keys: help begins with them."""

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The places of the keymap, the nearest first."""
