"""Reads the style of a class from the stylesheet without a widget of that class."""

from __future__ import annotations

from rich.style import Style
from textual.dom import DOMNode
from textual.widget import Widget


def style_of(widget: Widget, classes: str) -> Style:
    """The style that a child of ``widget`` with these classes would have."""
    node = DOMNode(classes=classes)
    node._attach(widget)
    widget.app.stylesheet.apply(node, animate=False)
    return node.rich_style
