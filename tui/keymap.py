"""Which key does what: every command of the screen with its keys, and how an operator changes them.

The one table that bindings, borders, help, palette and ``[keys]`` of ``llmtop.toml`` are made from.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache

from msgspec import Struct


class Place(StrEnum):
    """Where a key works. Its words are the heading in help."""

    LOAD = "The load"
    ENGINES = "Engines"
    SCREEN = "The screen"
    OPTIONS = "In the options"
    LOG = "In the log"
    HELP = "In help"
    PALETTE = "In the palette"
    EXPERIMENT = "Searching and comparing"
    QUIT = "When leaving"
    STOP = "Before an engine is stopped"
    RESTART = "Before a restart"


DASHBOARD = (Place.LOAD, Place.ENGINES, Place.SCREEN)  # one set of keys: they work side by side


class Command(Struct, frozen=True):
    """One thing that a key does.

    id: its name in ``[keys]``. keys: as Textual calls them. words: for help. short: for borders.
    changes: it changes an engine or its load, so it is gone when read-only. typed: it works while
    text is typed, so no character may mean it.
    """

    id: str
    place: Place
    keys: tuple[str, ...]
    words: str
    short: str = ""
    changes: bool = False
    typed: bool = False


def _rows(place: Place, *rows: tuple[str, str, str, str], **marks: bool) -> Iterator[Command]:
    for name, keys, words, short in rows:
        yield Command(name, place, tuple(keys.split(",")), words, short, **marks)


COMMANDS: tuple[Command, ...] = (
    *_rows(
        Place.LOAD,
        (
            "load.more",
            "plus,equals_sign",
            "more load, held at the new level: its shape stops. Without one: starts one at 1",
            "more",
        ),
        ("load.less", "minus", "less load, held at the new level: its shape stops", "less"),
        ("load.hold", "space", "hold the load where it is; again: let its shape go on", "hold"),
        ("load.burst", "b", "a short burst of load", "burst"),
        (
            "load.loop",
            "u",
            "other unit: from streams (closed loop) to requests a second (open loop) or back, "
            "holding what is achieved now",
            "unit",
        ),
        ("load.stop", "0", "stop the load; what is in flight finishes", "stop"),
        ("load.cut", "X", "stop the load and cut what is in flight", "cut"),
        changes=True,
    ),
    *_rows(
        Place.ENGINES,
        ("options", "o", "change options", "options"),
        ("saturation", "s", "saturation: what the engine holds", "saturation"),
        ("compare", "c", "compare two values of an option, or two engines", "compare"),
        ("engine.restart", "R", "restart the engine as it is; asks first", "restart"),
        ("engine.stop", "K", "stop the engine; asks first", "stop it"),
        changes=True,
    ),
    *_rows(
        Place.ENGINES,
        ("engine.next", "n,tab", "the next engine", "next engine"),
        ("engine.before", "shift+tab", "the engine before", "engine before"),
        ("engine.beside", "v", "two engines side by side; again: one", "side by side"),
        ("log", "l", "the engine's log", "log"),
    ),
    *_rows(
        Place.SCREEN,
        ("palette", "ctrl+p,colon", "everything by name: keys, options, loads, themes", "palette"),
        ("theme", "t", "the next theme", "theme"),
        (
            "mouse",
            "m",
            "let the mouse go, so that the terminal selects text; again: take it",
            "mouse",
        ),
        ("help", "question_mark,f1", "help: every key, every number", "help"),
        ("suspend", "ctrl+z", "suspend; fg brings it back", "suspend"),
        ("quit", "q", "quit: asks whether the engines go on running", "quit"),
        ("quit.now", "ctrl+c,ctrl+q", "the same, from every screen", "quit"),
    ),
    *_rows(
        Place.OPTIONS,
        (
            "options.up",
            "up,k",
            "the option above; while changing one that has choices: the choice above",
            "choose",
        ),
        ("options.down", "down,j", "the option below, the choice below", "choose"),
        (
            "options.change",
            "enter,space",
            "change it: type, then enter. A switch flips at once. A restart asks first.",
            "change",
        ),
        (
            "options.evict",
            "e",
            "while max_num_seqs is lowered: evict, that is put running requests back in the queue",
            "evict",
        ),
        (
            "options.leave",
            "escape,o,q",
            "leave the options; esc while typing: the value stays as it is",
            "back",
        ),
    ),
    *_rows(
        Place.LOG,
        ("log.up", "up,k", "a line up; following ends", "scroll"),
        ("log.down", "down,j", "a line down", "scroll"),
        ("log.page_up", "pageup", "a page up", ""),
        ("log.page_down", "pagedown", "a page down", ""),
        ("log.first", "home,g", "the first line that is kept", "first"),
        ("log.last", "end,G", "the last line, and follow", "last"),
        ("log.left", "left", "to the left; lines are never wrapped", ""),
        ("log.right", "right", "to the right", ""),
        ("log.follow", "f", "follow or stay: whether new lines move the screen", "follow"),
        ("log.level", "v", "all lines, warnings and errors, errors alone", "levels"),
        ("log.error", "e", "the first error", "first error"),
        ("log.search", "slash", "search; without capitals in it, capitals do not matter", "search"),
        ("log.next", "n", "the next hit", "next"),
        ("log.previous", "N", "the hit before", "before"),
        ("log.back", "escape,l,q", "back; esc ends a search first", "back"),
    ),
    *_rows(
        Place.HELP,
        ("help.up", "up,k", "a line up", "up"),
        ("help.down", "down,j", "a line down", "down"),
        ("help.page_up", "pageup", "a page up", ""),
        ("help.page_down", "pagedown,space", "a page down", ""),
        ("help.first", "home,g", "the beginning", ""),
        ("help.last", "end,G", "the end", ""),
        ("help.back", "escape,q,question_mark", "back", "back"),
    ),
    *_rows(
        Place.PALETTE,
        ("palette.up", "up,ctrl+k", "the line above", "choose"),
        ("palette.down", "down,ctrl+j", "the line below", "choose"),
        ("palette.run", "enter", "do it, or go on typing its value", "do it"),
        ("palette.take", "tab", "take the line's words, to go on typing", "complete"),
        ("palette.back", "escape,ctrl+p", "back", "back"),
        typed=True,
    ),
    *_rows(
        Place.EXPERIMENT,
        ("experiment.start", "enter", "start; from a result: show the form", "start"),
        ("experiment.form", "e", "show the form", "other settings"),
        ("experiment.stop", "x,0", "stop it, and keep what is known", "stop"),
        ("experiment.back", "escape,q", "back; what runs goes on", "back"),
        ("saturation.ghosts", "g", "earlier curves: all, the newest, none", "ghosts"),
        ("saturation.back", "s", "back from the saturation screen", "back"),
        ("compare.back", "c", "back from the compare screen", "back"),
        changes=True,
    ),
    *_rows(
        Place.QUIT,
        ("quit.leave", "enter,q,y", "quit, leave them running", "quit, leave them running"),
        ("quit.stay", "escape,c,n", "stay", "stay"),
    ),
    *_rows(
        Place.QUIT, ("quit.stop", "S", "quit and stop them", "quit and stop them"), changes=True
    ),
    *_rows(
        Place.STOP,
        ("stop.yes", "Y", "stop it", "stop it"),
        ("stop.no", "escape,n,q", "leave it running", "leave it running"),
        changes=True,
    ),
    *_rows(
        Place.RESTART,
        ("restart.yes", "y", "restart it", "restart it"),
        ("restart.rolling", "r", "start the new one first, then stop the old one", "rolling"),
        ("restart.no", "escape,n,q", "leave it as it is", "leave it as it is"),
        changes=True,
    ),
)

BY_ID: Mapping[str, Command] = {command.id: command for command in COMMANDS}
LEAVING = "quit.now"  # works on every screen, before anything else there

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


class Keymap:
    """The keys in force. chosen: by command, in place of the table's; checked by ``misfits``."""

    def __init__(self, chosen: Mapping[str, str] | None = None) -> None:
        self.chosen = {name: split(keys) for name, keys in (chosen or {}).items()}

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of a command, as Textual calls them."""
        return self.chosen.get(name) or BY_ID[name].keys

    def label(self, name: str) -> str:
        """The first key of a command as it is shown."""
        return spell(self.keys(name)[0])

    def labels(self, name: str) -> str:
        """All keys of a command as they are shown, two blanks between."""
        return "  ".join(spell(key) for key in self.keys(name))

    def pair(self, first: str, second: str) -> str:
        """Two keys that belong together: ``up down``, or ``+-`` where both are characters."""
        one, other = self.label(first), self.label(second)
        return one + other if len(one) == len(other) == 1 else f"{one} {other}"

    def meant(self, place: Place, key: str) -> str | None:
        """The command that a key means in a place, None when it means nothing there."""
        for command in COMMANDS:
            if command.place is place and key in self.keys(command.id):
                return command.id
        return None

    @property
    def bindings(self) -> dict[str, str]:
        """What differs from the table, as Textual's keymap takes it."""
        return {name: ",".join(keys) for name, keys in self.chosen.items()}


DEFAULT = Keymap()


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


def misfits(chosen: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with other keys: (command, words, hint) each."""
    import difflib

    for name, text in chosen.items():
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(BY_ID)}"
            yield name, "no command of the screen is called so", hint
            continue
        keys = split(text)
        if not keys:
            yield name, "a command needs a key", 'write one or more: "plus,w"'
        for key in keys:
            if not is_key(key):
                words = f"{key!r} is not a key"
                yield name, words, "write w, W, plus, f5, pageup, ctrl+w, comma"
            elif name == LEAVING and is_text(key):
                words = f"{spell(key)!r} is typed on some screens, and this works on every one"
                yield name, words, "take another one, such as f10 or ctrl+w"
            elif BY_ID[name].typed and is_text(key):
                words = f"{spell(key)!r} is typed there, so it can mean nothing else"
                yield name, words, "take another one, such as f5 or ctrl+w"
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
                # Said of one that was chosen: what the table says is no mistake.
                mine, its = (
                    (command.id, other) if command.id in keymap.chosen else (other, command.id)
                )
                yield mine, f"{spell(key)!r} is {its} already", f"give {its} another key"


def _scopes() -> Iterator[list[Command]]:
    """Commands whose keys work at the same time."""
    yield [command for command in COMMANDS if command.place in DASHBOARD]
    for place in Place:
        if place not in DASHBOARD:
            yield [BY_ID[LEAVING], *(c for c in COMMANDS if c.place is place)]


def of(places: Iterable[Place], *, readonly: bool = False) -> list[Command]:
    """The commands of some places; without those that change something when read-only."""
    wanted = set(places)
    return [c for c in COMMANDS if c.place in wanted and not (readonly and c.changes)]


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
