"""What a person reads of rows."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.tui.widgets.row import Row


def plain(rows: Iterable[Row]) -> list[str]:
    """The text of rows without their roles."""
    return ["".join(text for text, _ in row) for row in rows]
