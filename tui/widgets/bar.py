"""Bars: a share as a row of blocks. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, Span


def bar(share: float | None, cells: int, role: str, glyphs: Glyphs) -> list[Span]:
    """A bar of ``cells`` cells, filled to ``share`` (0..1) in half cells; empty if it is None."""
    if cells <= 0:
        return []
    halves = round(min(1.0, max(0.0, share or 0.0)) * cells * 2)
    if share and not halves:
        halves = 1  # a small share stays visible
    full, half = divmod(halves, 2)
    text = glyphs.full * full + glyphs.half * half
    rest = glyphs.empty * (cells - full - half)
    return [span for span in ((text, role), (rest, FAINT)) if span[0]]


def parts_bar(
    parts: Sequence[tuple[float, str]], whole: float, cells: int, glyphs: Glyphs
) -> list[Span]:
    """Parts of ``whole`` side by side, (size, role) each; the rest of the bar is empty.

    Each end is rounded from the running sum, so that rounding errors do not add up. Each part has
    at least one cell while there is room.
    """
    out: list[Span] = []
    if whole <= 0 or cells <= 0:
        return [(glyphs.empty * max(0, cells), FAINT)]
    sum_so_far, drawn = 0.0, 0
    for size, role in parts:
        sum_so_far += max(0.0, size)
        end = min(cells, round(sum_so_far / whole * cells))
        if size > 0 and end == drawn and drawn < cells:
            end += 1
        if end > drawn:
            out.append((glyphs.full * (end - drawn), role))
            drawn = end
    if drawn < cells:
        out.append((glyphs.empty * (cells - drawn), FAINT))
    return out
