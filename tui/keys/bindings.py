"""Makes Textual's bindings from the key table."""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding, BindingType

from llmtop.config.key_table import BY_ID, LEAVING


def bindings(actions: Mapping[str, str]) -> list[BindingType]:
    """A binding for each command. actions: command id in the key table -> Textual action."""
    return [
        Binding(
            ",".join(BY_ID[name].keys),
            action,
            BY_ID[name].short or BY_ID[name].words,
            id=name,
            priority=name == LEAVING,
        )
        for name, action in actions.items()
    ]
