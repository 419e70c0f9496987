"""The stylesheet's answer for a class that no widget has."""

from __future__ import annotations

from rich.style import Style
from textual.dom import DOMNode
from textual.widget import Widget


def style_of(widget: Widget, classes: str) -> Style:
    """The style of a child of ``widget`` with these classes, which need not exist."""
    node = DOMNode(classes=classes)
    node._attach(widget)
    widget.app.stylesheet.apply(node, animate=False)
    return node.rich_style
