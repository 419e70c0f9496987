"""The interface of app and screens: typed text, and the keys at the top of the help."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from textual.events import Key

from llmtop.config.key_table import Place


@runtime_checkable
class TypedAhead(Protocol):
    """A screen that may get keys that were read before it existed.

    Textual sends a key to the screen that is on top when the key is read, and looks up bindings
    later. In a burst, characters after the key that opens a text field would trigger bindings.
    """

    async def typed_ahead(self, event: Key) -> bool:
        """Accept the key as typed text; return whether it was."""


class TypedText:
    """Mix-in of a screen with a text field. It handles keys that ``take_key`` accepts."""

    def take_key(self, event: Key) -> bool:
        """Accept the key as typed text; return whether it was."""
        raise NotImplementedError

    async def on_key(self, event: Key) -> None:
        """Stop a key that was typed text, so that it triggers nothing else."""
        if self.take_key(event):
            event.stop()
            event.prevent_default()

    async def typed_ahead(self, event: Key) -> bool:
        """See ``TypedAhead``."""
        return self.take_key(event)


@runtime_checkable
class Helped(Protocol):
    """A screen whose keys are at the top of the help."""

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The sections of the key table, most specific first."""
