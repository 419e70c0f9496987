"""The marks of changes below a chart: which words fit, and their colour."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.analysis.marks import Mark
from llmtop.tui.widgets.axis import TimeGrid
from llmtop.tui.widgets.row import MUTED, Span
from llmtop.wording import format as f


def mark_words(marks: Sequence[Mark], grid: TimeGrid, room: int) -> list[Span]:
    """The newest mark's words, in what the figures leave: no number is torn, and none stands
    without what it became."""
    if not marks or grid.cells <= 12:
        return []
    words = f.clean(marks[-1].label)
    tight = words.replace(" -> ", "->").replace(" → ", "→")
    whole = [tight.rsplit(", ", left)[0] + "…" for left in range(1, tight.count(", ") + 1)]
    name = words.partition(" ")[0] + "…"
    kept = next((one for one in (words, tight, *whole, name) if len(one) <= room), None)
    return [(kept, mark_role(marks[-1]))] if kept else []


def mark_role(mark: Mark) -> str:
    """Changes of options are in a colour, those of the load are not."""
    return MUTED if mark.load else "mark"
