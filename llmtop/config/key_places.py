"""Places in which keys work, and the type of a command."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Place(StrEnum):
    """Where a key works. The value is the heading in help."""

    LOAD = "The load"
    ENGINES = "Engines"
    SCREEN = "The screen"
    CHARTS = "The charts"
    OPTIONS = "In the options"
    LOG = "In the log"
    HELP = "In help"
    PALETTE = "In the palette"
    STEPS = "In the steps"
    REQUESTS = "In the requests"
    WHY = "On the why screen"
    EXPERIMENT = "Searching and comparing"
    BOXES = "In the list of boxes"
    QUIT = "When leaving"
    STOP = "Before an engine is stopped"
    RESTART = "Before a restart"
    FLEET = "In the fleet"
    REPLAY = "In a replay"
    CHANGE = "Before an option is changed"
    ABORT = "Before a request is aborted"
    HOLD = "Before an engine is held"
    END_HOLD = "Before a hold ends"


DASHBOARD = (
    Place.LOAD,
    Place.ENGINES,
    Place.CHARTS,
    Place.SCREEN,
)  # their keys work at the same time, so they must differ


class Command(Struct, frozen=True):
    """A command of the screen.

    id: its name in ``[keys]``. keys: its default keys, Textual's names. words: its text in help.
    short: its text in borders. changes: it changes an engine or its load, so a read-only screen
    does not have it. typed: it works while a text field has the focus, so its keys must not type
    characters.
    """

    id: str
    place: Place
    keys: tuple[str, ...]
    words: str
    short: str = ""
    changes: bool = False
    typed: bool = False
