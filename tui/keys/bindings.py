"""Bindings for Textual, made from the table of keys."""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding, BindingType

from llmtop.config.key_table import BY_ID, LEAVING


def bindings(actions: Mapping[str, str]) -> list[BindingType]:
    """A binding for each command: its id in the table -> the action that does it."""
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
