"""A box with text in its borders: title and numbers above; window, marks and keys below."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, Row, Span, fit, join, shorten, width

Ranked = tuple[int, Sequence[Span]]  # rank and text; the highest rank is left out first


def frame(
    body: Sequence[Row],
    cells: int,
    height: int,
    glyphs: Glyphs,
    *,
    title: str,
    head: Sequence[Ranked] = (),
    foot: Sequence[Span] = (),
    foot_right: Sequence[Span] = (),
    lit: bool = False,
    border: str = "",
) -> list[Row]:
    """``height`` rows of ``cells`` cells: ``body`` in a box.

    head: the numbers of the upper border, with their ranks. foot, foot_right: the text of the lower
    border. lit: the box has the keyboard focus. border: the role of the lines, "" for the default.
    """
    line = "key" if lit else border or FAINT
    inner = cells - 2
    if height < 2 or inner < 4:
        return [fit(row, cells) for row in body[:height]]
    rows = [_edge(cells, glyphs, line, (glyphs.top_left, glyphs.top_right), title, head)]
    side = (glyphs.down, line)
    for number in range(height - 2):
        row = body[number] if number < len(body) else ()
        rows.append((side, *fit(row, inner), side))
    rows.append(_bottom(cells, glyphs, line, foot, foot_right))
    return rows


def head_room(cells: int, title: str) -> int:
    """The number of cells that the upper border of a box has for its numbers."""
    return cells - 2 - len(title) - 2 - 4


def _edge(
    cells: int,
    glyphs: Glyphs,
    line: str,
    corners: tuple[str, str],
    title: str,
    head: Sequence[Ranked],
) -> Row:
    name = shorten(title, cells - 4)
    room = head_room(cells, name)
    right = join(head, room) if room > 0 else []
    right = [(" ", line), *right, (" ", line), (glyphs.across, line)] if right else []
    left: list[Span] = [(corners[0], line), (" ", line), (name, "title"), (" ", line)]
    middle = cells - width(left) - width(right) - 1
    return (*left, (glyphs.across * max(0, middle), line), *right, (corners[1], line))


def _bottom(
    cells: int, glyphs: Glyphs, line: str, foot: Sequence[Span], foot_right: Sequence[Span]
) -> Row:
    left: list[Span] = [(glyphs.bottom_left, line)]
    if foot:
        left += [(" ", line), *foot, (" ", line)]
    right: list[Span] = [(glyphs.bottom_right, line)]
    room = cells - width(left) - 1
    if foot_right and room > 5:
        words = fit(foot_right, min(width(foot_right), room - 4))
        right = [(" ", line), *words, (" ", line), (glyphs.across, line), *right]
    middle = cells - width(left) - width(right)
    if middle < 0:
        left, right = [(glyphs.bottom_left, line)], [(glyphs.bottom_right, line)]
        middle = cells - 2
    return (*left, (glyphs.across * middle, line), *right)
