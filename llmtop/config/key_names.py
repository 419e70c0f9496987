"""The names of keys: as Textual calls them, as a person reads them, as a terminal sends them."""

from __future__ import annotations

import unicodedata
from functools import cache

# Textual 8: what the Unicode name of a character becomes in the name of its key.
_RENAMED = {
    "plus": "plus sign",
    "minus": "hyphen-minus",
    "slash": "solidus",
    "backslash": "reverse solidus",
    "at": "commercial at",
    "underscore": "low line",
    "less_than_sign": "less-than sign",
    "greater_than_sign": "greater-than sign",
}
_NAMED = (
    *["up", "down", "left", "right", "home", "end", "insert", "delete", "pageup", "pagedown"],
    *["escape", "enter", "tab", "backspace", "space"],
    *(f"f{number}" for number in range(1, 25)),
)
_SHOWN = {"escape": "esc", "pageup": "pgup", "pagedown": "pgdn", "delete": "del"}
_MODIFIERS = ("ctrl", "shift", "alt", "super", "hyper", "meta")


def split(text: str) -> tuple[str, ...]:
    """``"+, w"`` as names of keys: ``("plus", "w")``; a lone character stands for its key."""
    return tuple(dict.fromkeys(_name(part.strip()) for part in text.split(",") if part.strip()))


@cache
def spell(key: str) -> str:
    """A key as a person reads it: ``+``, ``esc``, ``ctrl+c``."""
    *modifiers, name = key.split("+")
    shown = _SHOWN.get(name) or (name if name in _NAMED else _character(name)) or name
    return "+".join((*modifiers, shown))


def is_key(key: str) -> bool:
    """Whether a terminal can send such a key."""
    *modifiers, name = key.split("+")
    if len(set(modifiers)) != len(modifiers) or not set(modifiers) <= set(_MODIFIERS):
        return False
    return name in _NAMED or _character(name) is not None


def is_text(key: str) -> bool:
    """Whether a key types a character."""
    return key == "space" or (key not in _NAMED and "+" not in key and _character(key) is not None)


def _name(key: str) -> str:
    """The name of a key; a character other than a letter or a digit has one."""
    if len(key) != 1 or key.isalnum():
        return key
    for name, known in _RENAMED.items():
        if unicodedata.lookup(known) == key:
            return name
    try:
        return unicodedata.name(key).lower().replace("-", "_").replace(" ", "_")
    except ValueError:
        return key


def _character(name: str) -> str | None:
    if len(name) == 1:
        return name if name.isalnum() else None
    if name != name.lower():
        return None
    try:
        character = unicodedata.lookup(_RENAMED.get(name) or name.replace("_", " "))
    except KeyError:
        return None
    # Letters are called as they are written; a control character types nothing.
    return character if character.isprintable() and not character.isalnum() else None
