"""Braille drawing: numbers to dots to characters. Pure functions.

An empty braille cell (U+2800) takes three bytes, a space one. So empty cells are spaces. One colour
per run of cells needs a tenth of the bytes of one colour per cell (measured).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

DOTS_DOWN = 4  # dots of a cell, vertically
DOTS_ACROSS = 2  # and horizontally

_LEFT = (0x01, 0x02, 0x04, 0x40)  # Unicode: the bit of each dot, from the top
_RIGHT = (0x08, 0x10, 0x20, 0x80)
_SIDES = (_LEFT, _RIGHT)

Grid = list[list[int]]  # rows of dot masks, the top row first
BLANK = (" ", "")  # a cell in which nothing is drawn
Columns = Sequence[float | None]  # two per cell, the oldest first; None is a gap


def plot(
    columns: Columns,
    width: int,
    height: int,
    maximum: float,
    minimum: float = 0.0,
    *,
    fill: bool = False,
) -> Grid:
    """Dot masks of a line, or with ``fill`` of the area below it, right-aligned.

    The grid has ``height`` rows of ``width`` cells. Values outside ``minimum`` to ``maximum`` are
    drawn at the edge. A gap breaks the line.
    """
    grid = [[0] * width for _ in range(height)]
    if columns.count(None) == len(columns):
        return grid
    levels = height * DOTS_DOWN - 1
    scale = levels / (maximum - minimum) if maximum > minimum else 0.0
    columns = columns[-width * DOTS_ACROSS :]
    offset = width * DOTS_ACROSS - len(columns)
    places = _places(grid)
    before: int | None = None
    for number, value in enumerate(columns, offset):
        if value is None:
            before = None
            continue
        level = round((value - minimum) * scale)
        level = 0 if level < 0 else min(level, levels)
        low = high = level
        if fill:
            low = 0
        elif before is not None:  # reach to the dot next to the previous one
            if before < level:
                low = before + 1
            elif before > level:
                high = before - 1
        before = level
        cell, side = divmod(number, DOTS_ACROSS)
        for row, bit in places[side][low : high + 1]:
            row[cell] |= bit
    return grid


def band(lower: Columns, upper: Columns, width: int, height: int, maximum: float) -> Grid:
    """Dot masks of the area between two series, right-aligned.

    One dot in four is set, so that a line inside the area stays visible. An area of at most four
    dots is filled. Where ``upper`` is None, the area reaches the top.
    """
    grid = [[0] * width for _ in range(height)]
    levels = height * DOTS_DOWN - 1
    scale = levels / maximum if maximum > 0 else 0.0
    lower, upper = lower[-width * DOTS_ACROSS :], upper[-width * DOTS_ACROSS :]
    offset = width * DOTS_ACROSS - len(lower)
    places = _places(grid)
    for number, (low, high) in enumerate(zip(lower, upper, strict=True), offset):
        if low is None:
            continue
        bottom = min(levels, max(0, round(low * scale)))
        top = levels if high is None else min(levels, max(bottom, round(high * scale)))
        cell, side = divmod(number, DOTS_ACROSS)
        column = places[side]
        for dot in range(bottom, top + 1):
            if top - bottom < DOTS_DOWN or (2 * dot + number) % 4 == 0:
                row, bit = column[dot]
                row[cell] |= bit
    return grid


def _places(grid: Grid) -> tuple[list[tuple[list[int], int]], list[tuple[list[int], int]]]:
    """Where a dot is, by its height: the row of masks and the bit, of a left and a right column."""
    rows = grid[::-1]
    left, right = ([(row, bit) for row in rows for bit in reversed(bits)] for bits in _SIDES)
    return left, right


def overlay(
    layers: Iterable[tuple[Grid, str]], width: int, height: int, *, braille: bool = True
) -> list[list[tuple[str, str]]]:
    """Several grids as one: rows of cells, (character, role) each. An empty cell is ``BLANK``.

    Where grids overlap, all their dots are shown in the role of the last one. Without braille, a
    cell is an ASCII character of a similar shape.
    """
    signs = _BRAILLE if braille else _ASCII
    out: list[list[tuple[str, str]]] = []
    layers = list(layers)
    for y in range(height):
        # The first two cases are fast, and most rows are blank or have dots of one grid.
        drawn = [(grid[y], role) for grid, role in layers if any(grid[y])]
        if not drawn:
            out.append([BLANK] * width)
        elif len(drawn) == 1:
            masks, role = drawn[0]
            out.append([(signs[m], role) if m else BLANK for m in masks])
        else:
            both, roles = [0] * width, [""] * width
            for masks, role in drawn:
                for x, mask in enumerate(masks):
                    if mask:
                        both[x] |= mask
                        roles[x] = role
            out.append([(signs[m], r) for m, r in zip(both, roles, strict=True)])
    return out


def _ascii(mask: int) -> str:
    rows = [y for y in range(DOTS_DOWN) if mask & (_LEFT[y] | _RIGHT[y])]
    if len(rows) >= 3:
        return "#" if mask & 0x47 and mask & 0xB8 else "|"
    middle = sum(rows) / len(rows)
    return "'" if middle < 1 else "-" if middle <= 2 else "_"


_BRAILLE = [" ", *(chr(0x2800 + mask) for mask in range(1, 256))]
_ASCII = [" ", *(_ascii(mask) for mask in range(1, 256))]
