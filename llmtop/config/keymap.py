"""The keys in force: the defaults, or those of ``[keys]``. Checks the keys of ``[keys]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmtop.config.key_names import is_key, is_text, parse_keys, short_name
from llmtop.config.key_table import BY_ID, COMMANDS, DASHBOARD, LEAVING, Command, Place


class Keymap:
    """The keys in force.

    chosen: keys by command that replace the defaults; ``key_faults`` has checked them.
    """

    def __init__(self, chosen: Mapping[str, str] | None = None) -> None:
        self.chosen = {name: parse_keys(keys) for name, keys in (chosen or {}).items()}

    def keys(self, name: str) -> tuple[str, ...]:
        """Textual's names of the keys of a command."""
        return self.chosen.get(name) or BY_ID[name].keys

    def label(self, name: str) -> str:
        """The first key of a command in its short form."""
        return short_name(self.keys(name)[0])

    def labels(self, name: str) -> str:
        """All keys of a command in their short form, separated by two blanks."""
        return "  ".join(short_name(key) for key in self.keys(name))

    def pair(self, first: str, second: str) -> str:
        """The first keys of two commands: ``up down``, or ``+-`` if both are characters."""
        one, other = self.label(first), self.label(second)
        return one + other if len(one) == len(other) == 1 else f"{one} {other}"

    def command_of(self, place: Place, key: str) -> str | None:
        """The command of a key in a place; None if it has none there."""
        for command in COMMANDS:
            if command.place is place and key in self.keys(command.id):
                return command.id
        return None

    @property
    def bindings(self) -> dict[str, str]:
        """The replaced keys in the format of Textual's keymap."""
        return {name: ",".join(keys) for name, keys in self.chosen.items()}


DEFAULT = Keymap()


def key_faults(chosen: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """The faults of keys that replace the defaults: (command, message, hint) each.

    chosen: keys by command, as ``[keys]`` has them.
    """
    import difflib

    for name, text in chosen.items():
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known commands: {', '.join(BY_ID)}"
            yield name, "the screen has no such command", hint
            continue
        keys = parse_keys(text)
        if not keys:
            yield name, "a command needs a key", 'write one or more: "plus,w"'
        for key in keys:
            short = repr(short_name(key))
            if not is_key(key):
                words = f"{key!r} is not a key"
                yield name, words, "write w, W, plus, f5, pageup, ctrl+w, comma"
            elif name == LEAVING and is_text(key):
                words = f"{short} types a character on some screens, but must work on all"
                yield name, words, "use another one, such as f10 or ctrl+w"
            elif BY_ID[name].typed and is_text(key):
                words = f"{short} types a character there, so it cannot start a command"
                yield name, words, "use another one, such as f5 or ctrl+w"
    keymap = Keymap({name: keys for name, keys in chosen.items() if name in BY_ID})
    yield from _collisions(keymap)


def _collisions(keymap: Keymap) -> Iterator[tuple[str, str, str]]:
    for scope in _scopes():
        taken: dict[str, str] = {}
        for command in scope:
            for key in keymap.keys(command.id):
                other = taken.setdefault(key, command.id)
                if other == command.id:
                    continue
                # The fault is that of the replaced key: the defaults do not collide.
                mine, its = (
                    (command.id, other) if command.id in keymap.chosen else (other, command.id)
                )
                words = f"{short_name(key)!r} is already the key of {its}"
                yield mine, words, f"give {its} another key"


def _scopes() -> Iterator[list[Command]]:
    """Commands whose keys work at the same time."""
    yield [command for command in COMMANDS if command.place in DASHBOARD]
    for place in Place:
        if place not in DASHBOARD:
            yield [BY_ID[LEAVING], *(c for c in COMMANDS if c.place is place)]
