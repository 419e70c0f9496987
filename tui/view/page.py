"""The parts of a full-screen page: title, sentences, progress, keys. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, join, shorten, sides
from llmtop.tui.widgets.row import width as row_width
from llmtop.wording import format as f

BAR = 20  # cells of the progress bar
Keys = Sequence[tuple[str, str]]


def title_row(name: str, engine: EngineTrack | None, state: Span, view: View, width: int) -> Row:
    """The title of a page: its name, the engine, and the state at the right."""
    groups: list[Ranked] = [(0, [("llmtop", "brand")]), (0, [(name, "title")])]
    if engine is not None:
        groups += [
            (1, [(f.clean(engine.name, 40), STRONG)]),
            (3, [(f.clean(f"{engine.title} {engine.version or ''}".strip(), 40), MUTED)]),
            (4, [(f.clean(engine.model or "", 50), MUTED)]),
            (2, [("simulated", "warn")] if engine.simulated else []),
        ]
    right: list[Span] = [(f"{view.glyphs.bullet} {state[0]} ", state[1])]
    return sides([(" ", TEXT), *join(groups, width - len(state[0]) - 5)], right, width)


def fitting(sentences: Sequence[str], width: int, most: int) -> str:
    """The first sentence that needs at most ``most`` rows, else the last one."""
    for words in sentences:
        if len(_wrapped(words, width)) <= most:
            return words
    return sentences[-1]


def _wrapped(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, max(10, width - 2)) or [""]


def sentence_rows(words: str, role: str, width: int, most: int, least: int = 1) -> list[Row]:
    """A sentence in ``least`` to ``most`` rows, wrapped between words; cut if it is too long."""
    lines = _wrapped(words, width)
    if len(lines) > most:
        lines = [*lines[: most - 1], shorten(" ".join(lines[most - 1 :]), width - 2)]
    lines += [""] * (least - len(lines))
    return [fit([(f" {line}", role)], width) for line in lines]


def paragraph_rows(paragraphs: Sequence[str], width: int) -> list[Row]:
    """Paragraphs, wrapped between words, with an empty row between them."""
    rows: list[Row] = []
    for words in paragraphs:
        rows += [fit((), width)] if rows else []
        rows += [fit([(f" {line}", MUTED)], width) for line in _wrapped(words, width)]
    return rows


def progress_row(
    words: Sequence[str], share: float | None, left: str, view: View, width: int
) -> Row:
    """The current work, a progress bar, and the time left.

    words: the same text in decreasing length; the first that fits is used. share: the completed
    share, 0 to 1; None: no bar, because the work is over. left: the time left, in words.
    """
    right: list[Span] = []
    if share is not None:
        right = [*bar(share, BAR, "load", view.glyphs), (f"  {left} ", STRONG)]
    room = width - row_width(right) - 2
    if room <= 10:
        right, room = [], width - 2
    text = next((each for each in words if len(each) <= room), words[-1])
    return sides([(f" {shorten(text, room)}", TEXT)], right, width)


def keys_row(keys: Keys, width: int) -> Row:
    """The keys that work now; if there is little room, the last ones are left out."""
    groups: list[Ranked] = [
        (rank, [(key, "key"), (f" {word}", MUTED)]) for rank, (key, word) in enumerate(keys)
    ]
    return fit([(" ", TEXT), *join(groups, width - 2)], width)


def beside(left: Sequence[Row], right: Sequence[Row]) -> list[Row]:
    """Two blocks of the same height next to each other."""
    return [(*a, *b) for a, b in zip(left, right, strict=True)]


def form_keys(view: View) -> list[tuple[str, str]]:
    """The keys while the form is open."""
    keys = view.keys
    return [
        (keys.label("experiment.start"), "start"),
        ("up down", "choose"),
        (keys.label("experiment.back"), "back"),
    ]


def running_keys(view: View) -> list[tuple[str, str]]:
    """The keys while an experiment runs."""
    keys = view.keys
    return [
        (keys.label("experiment.stop"), "stop"),
        (keys.label("experiment.back"), "back, it keeps running"),
    ]


def usual_keys(view: View) -> list[tuple[str, str]]:
    """The keys of every screen."""
    return [(view.keys.label("theme"), "theme"), (view.keys.label("help"), "help")]


def small_rows(width: int, height: int) -> list[Row]:
    """The rows for a terminal that is too small."""
    line: Row = ((shorten("llmtop needs 60x16 or more", width), "warn"),)
    return [*[()] * (height // 2), line]
