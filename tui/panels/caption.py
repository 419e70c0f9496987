"""The caption of a tour: what is seen and what to look at, over one or two lines."""

from __future__ import annotations

import re

from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten, sides
from llmtop.tui.widgets.row import width as cells

TAKE_OVER = "any key takes over"
BAR = 20


def within(words: str, cells: int) -> str:
    """As many whole parts of a sentence as fit; of one that is too long, its beginning."""
    ends = [found.start() for found in re.finditer(r"[:;,] ", words)]
    fitting = [end for end in ends if end <= cells]
    if len(words) <= cells or not fitting:
        return shorten(words, cells)
    return words[: fitting[-1]]


class CaptionPanel(Panel):
    """In the place of the keys, which a tour makes all the same: one of them ends it."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """Title and progress above, the sentence below; in one line only title and sentence."""
        caption = view.caption
        if caption is None:
            return [fit([], width)] * height
        title: list[Span] = [(" tour  ", "brand"), (caption.title, "title")]
        if height < 2:
            room = width - cells(title) - 3
            return [fit([*title, ("  ", TEXT), (within(caption.words, room), STRONG)], width)]
        right: list[Span] = [(f"{TAKE_OVER} ", MUTED)]
        if width - cells(title) - cells(right) > BAR + 4:
            right = [*bar(caption.share, BAR, "brand", view.glyphs), ("  ", TEXT), *right]
        words: list[Span] = [(" ", TEXT), (within(caption.words, width - 2), STRONG)]
        return [sides(title, right, width), fit(words, width)]
