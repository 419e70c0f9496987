"""A Textual layout that puts panels where the arrangement says."""

from __future__ import annotations

from collections.abc import Callable

from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from llmtop.tui.layout.arrangement import Boxes


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
