"""Between app and screens: typed text, and the keys at the top of the help."""

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


class TypedText:
    """A part of a screen whose characters belong to a line of text while ``take_key`` says so."""

    def take_key(self, event: Key) -> bool:
        """Accept the key as typed text; False if it is not."""
        raise NotImplementedError

    async def on_key(self, event: Key) -> None:
        """A key that is typed text triggers nothing else."""
        if self.take_key(event):
            event.stop()
            event.prevent_default()

    async def typed_ahead(self, event: Key) -> bool:
        """See ``TypedAhead``."""
        return self.take_key(event)


@runtime_checkable
class Helped(Protocol):
    """A screen that names its keys: help begins with them."""

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The places of the keymap, the nearest first."""
