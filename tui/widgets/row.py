"""Rows: text with roles, measured in cells. A role is a meaning; the stylesheet sets its colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat

from rich.cells import cell_len as measured
from rich.cells import set_cell_size

Span = tuple[str, str]  # text, role
Row = tuple[Span, ...]

# The characters that the screen itself uses. Each takes one cell, so no width is looked up.
NARROW = re.compile("[ -~·…→≤│─-▿●○⠀-⣿]*")
_PARTS = re.compile("[:;,] ")
TEXT, MUTED, FAINT, STRONG = "text", "muted", "faint", "strong"

# An idle screen measures the same few hundred words at every redraw.
_cached_len = lru_cache(maxsize=512)(measured)


def cell_len(text: str) -> int:
    """The number of cells that a text takes.

    ASCII text is not cached: under load it is new at every redraw. It filled two caches of 4,096
    entries, this one and that of rich, within minutes: 1.4 MiB.
    """
    return len(text) if text.isascii() and text.isprintable() else _cached_len(text)


def width(spans: Iterable[Span]) -> int:
    """The number of cells that the spans take."""
    total = 0
    for text, _ in spans:  # ``cell_len``, mostly without its call
        total += len(text) if text.isascii() and text.isprintable() else cell_len(text)
    return total


def fit(spans: Iterable[Span], cells: int, role: str = TEXT) -> Row:
    """The spans in exactly ``cells`` cells: cut at the right, or padded with spaces of ``role``."""
    out: list[Span] = []
    left = cells
    for text, span_role in spans:
        if left <= 0:
            break
        size = len(text) if text.isascii() and text.isprintable() else cell_len(text)
        if size > left:
            text, size = set_cell_size(text, left), left
        if not text:
            continue
        if out and out[-1][1] == span_role:
            out[-1] = (out[-1][0] + text, span_role)
        else:
            out.append((text, span_role))
        left -= size
    if left > 0:
        out.append((" " * left, role))
    return tuple(out)


def shorten(text: str, cells: int) -> str:
    """Text in at most ``cells`` cells; an ellipsis shows where it was cut.

    The far end of a long text is not measured: a log line may have thousands of characters.
    """
    if cells <= 0:
        return ""
    # These characters fill the cells even if every second one takes no cell.
    near = text[: 2 * cells + 2]
    if len(near) < len(text) and cell_len(near) > cells:
        text = near
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - 1).rstrip() + "…"


def shorten_between(text: str, cells: int) -> str:
    """As ``shorten``, but cut between words if a word ends in the last half.

    A part of a word may have another meaning.
    """
    short = shorten(text, cells)
    if not short.endswith("…") or text.startswith(short):
        return short
    kept = short[:-1]
    end = len(kept) if text[len(kept)] == " " else kept.rfind(" ")
    return f"{kept[:end].rstrip()}…" if end > cells // 2 else short


def whole_parts(text: str, cells: int) -> str:
    """As many whole parts of a sentence as fit; its first words if the first part is too long.

    Parts end with a colon, a semicolon or a comma.
    """
    if cell_len(text) <= cells:
        return text
    ends = [found.start() for found in _PARTS.finditer(text)]
    fitting = [end for end in ends if cell_len(text[:end]) <= cells]
    return text[: fitting[-1]] if fitting else shorten_between(text, cells)


def hidden_left(text: str, cells: int) -> int:
    """The number of characters hidden at the left if ``cells`` cells show the end of the text."""
    at, free = len(text), cells
    while at and (free := free - cell_len(text[at - 1])) >= 0:
        at -= 1
    return at


def sides(left: Sequence[Span], right: Sequence[Span], cells: int) -> Row:
    """Left spans, and right spans at the right edge. The left ones are cut if both do not fit."""
    room = max(0, cells - width(right))
    return (*fit(left, room), *fit(right, min(cells, width(right))))


def join(groups: Sequence[tuple[int, Sequence[Span]]], cells: int, gap: str = "  ") -> list[Span]:
    """The groups that fit into ``cells`` cells, in their order, with ``gap`` between them.

    Each group has a rank. While the groups do not fit, the one with the highest rank is left out as
    a whole.
    """
    kept = [(rank, spans) for rank, spans in groups if spans]
    space = cell_len(gap)
    sizes = [width(spans) for _, spans in kept]
    while kept and sum(sizes) + space * (len(kept) - 1) > cells:
        worst = max(range(len(kept)), key=lambda i: kept[i][0])
        del kept[worst], sizes[worst]
    out: list[Span] = []
    for number, (_, spans) in enumerate(kept):
        if number:
            out.append((gap, FAINT))
        out.extend(spans)
    return out


def changed(before: Row, after: Row, bridge: int = 10) -> list[tuple[int, int]]:
    """The ranges of cells, (from, to), in which two rows differ.

    Ranges less than ``bridge`` cells apart become one. Moving the cursor and setting the colour
    costs about as many bytes as that many cells.
    """
    most = min(len(before), len(after))
    first = last = 0  # equal spans at the start and at the end
    while first < most and before[first] == after[first]:
        first += 1
    while last < most - first and before[-1 - last] == after[-1 - last]:
        last += 1
    left = width(before[:first])
    old, new = _cells(before[first : len(before) - last]), _cells(after[first : len(after) - last])
    if len(old) != len(new):
        return [(0, max(width(before), width(after)))]
    out: list[tuple[int, int]] = []
    for x, (a, b) in enumerate(zip(old, new, strict=True)):
        if a == b:
            continue
        start = x
        # The second cell of a wide character is "". No range begins or ends inside one.
        while start and (not old[start][0] or not new[start][0]):
            start -= 1
        end = x + 1
        while end < len(new) and (not old[end][0] or not new[end][0]):
            end += 1
        if out and start - out[-1][1] < bridge:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return [(left + start, left + end) for start, end in out]


def _cells(row: Row) -> list[Span]:
    cells: list[Span] = []
    for text, role in row:
        if NARROW.fullmatch(text):
            cells.extend(zip(text, repeat(role)))
            continue
        for c in text:
            cells.append((c, role))
            cells.extend([("", role)] * (cell_len(c) - 1))
    return cells


_PLAIN = str.maketrans("→…·≤", ">~-<")


def to_ascii(row: Row) -> Row:
    """The row for a terminal that shows only ASCII. Each character keeps its width."""
    out: list[Span] = []
    for text, role in row:
        if not text.isascii():
            mapped = text.translate(_PLAIN)
            text = "".join(c if c.isascii() else "?" * cell_len(c) for c in mapped)
        out.append((text, role))
    return tuple(out)


def faded(spans: Iterable[Span]) -> list[Span]:
    """The same text in the muted role: its values are out of date."""
    return [(text, MUTED) for text, _ in spans]
