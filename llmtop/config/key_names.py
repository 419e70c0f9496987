"""Names of keys: Textual's names, and the short forms that the screen shows."""

from __future__ import annotations

import unicodedata
from functools import cache

# Textual 8 names a key after the Unicode name of its character. These names are exceptions.
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


def parse_keys(text: str) -> tuple[str, ...]:
    """Textual's names of the keys in a text: ``"+, w"`` gives ``("plus", "w")``."""
    return tuple(dict.fromkeys(_name(part.strip()) for part in text.split(",") if part.strip()))


@cache
def short_name(key: str) -> str:
    """The short form of a key: ``+``, ``esc``, ``ctrl+c``. key: Textual's name."""
    *modifiers, name = key.split("+")
    shown = _SHOWN.get(name) or (name if name in _NAMED else _character(name)) or name
    return "+".join((*modifiers, shown))


def is_key(key: str) -> bool:
    """Whether this is the name of a key that a terminal can send."""
    *modifiers, name = key.split("+")
    if len(set(modifiers)) != len(modifiers) or not set(modifiers) <= set(_MODIFIERS):
        return False
    return name in _NAMED or _character(name) is not None


def is_text(key: str) -> bool:
    """Whether pressing the key in a text field types a character."""
    return key == "space" or (key not in _NAMED and "+" not in key and _character(key) is not None)


def _name(key: str) -> str:
    """Textual's name of a key. Letters and digits are their own names."""
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
    # Letters and digits have no other name, and a control character types nothing.
    return character if character.isprintable() and not character.isalnum() else None
