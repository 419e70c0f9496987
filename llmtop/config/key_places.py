"""Where keys work, and what one command of the table is."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Place(StrEnum):
    """Where a key works. Its words are the heading in help."""

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
)  # one set of keys: they work side by side


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
