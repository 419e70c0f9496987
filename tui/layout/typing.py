"""What the app asks a screen: where text is typed, and which keys its help begins with."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from textual.events import Key

from llmtop.config.key_table import Place


@runtime_checkable
class TypedAhead(Protocol):
    """A screen that may get keys which were read before it was there.

    Textual sends a key to the screen that is on top when the key is read, and looks bindings up
    later: in a burst, what follows the key that opens a line would be taken for other keys.
    """

    async def typed_ahead(self, event: Key) -> bool:
        """Take the key as typed here; False when it is not."""


@runtime_checkable
class Helped(Protocol):
    """A screen that says which keys work on it: help begins with those."""

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The places of the keymap, the nearest first."""
