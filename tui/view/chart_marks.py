"""The text of the marks below a chart, shortened to fit, and their colour role."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.analysis.marks import Mark
from llmtop.tui.widgets.axis import TimeGrid
from llmtop.tui.widgets.row import MUTED, Span
from llmtop.wording import format as f


def mark_words(marks: Sequence[Mark], grid: TimeGrid, room: int) -> list[Span]:
    """The newest mark's text, shortened to ``room`` characters.

    A number is never cut, and an old value is never shown without the new one.
    """
    if not marks or grid.cells <= 12:
        return []
    words = f.clean(marks[-1].label)
    tight = words.replace(" -> ", "->").replace(" → ", "→")
    whole = [tight.rsplit(", ", left)[0] + "…" for left in range(1, tight.count(", ") + 1)]
    name = words.partition(" ")[0] + "…"
    fitting = next((one for one in (words, tight, *whole, name) if len(one) <= room), None)
    return [(fitting, mark_role(marks[-1]))] if fitting else []


def mark_role(mark: Mark) -> str:
    """The colour role of a mark: muted for changes of the load, coloured for others."""
    return MUTED if mark.load else "mark"
