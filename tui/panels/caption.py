"""The caption of the guided tour: what the screen shows, below the state line."""

from __future__ import annotations

from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, sides, whole_parts
from llmtop.tui.widgets.row import width as cells

TAKE_OVER = "any key ends the tour"
BAR = 20


class CaptionPanel(Panel):
    """Title, progress and one sentence. It has no line of keys, because any key ends the tour."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """Title and progress above, the sentence below. One row has only title and sentence."""
        caption = view.caption
        if caption is None:
            return [fit([], width)] * height
        title: list[Span] = [(f" tour: {caption.title} ", "badge-brand")]
        if height < 2:
            room = width - cells(title) - 3
            return [fit([*title, ("  ", TEXT), (whole_parts(caption.words, room), STRONG)], width)]
        right: list[Span] = [(f"{TAKE_OVER} ", MUTED)]
        if width - cells(title) - cells(right) > BAR + 4:
            right = [*bar(caption.share, BAR, "brand", view.glyphs), ("  ", TEXT), *right]
        words: list[Span] = [(" ", TEXT), (whole_parts(caption.words, width - 2), "title")]
        return [sides(title, right, width), fit(words, width)]
