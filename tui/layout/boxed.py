"""A Textual layout that places panels in given boxes."""

from __future__ import annotations

from collections.abc import Callable

from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from llmtop.tui.layout.arrangement import Boxes


class BoxLayout(Layout):
    """Places each child in the box of its id; children without a box are not shown."""

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
