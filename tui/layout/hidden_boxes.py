"""Removes hidden boxes and gives their space to their neighbours. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from llmtop.tui.layout.arrangement import BESIDE, Box, Boxes

# The boxes that can be hidden, in the order of the list. The others always stay.
HIDEABLE = {
    "ttft": "TTFT",
    "tokens": "tokens/s",
    "kv": "KV cache",
    "queue": "queue",
    "itl": "inter-token latency",
    "speculation": "speculation",
    "requests": "requests/s",
    "steps": "time per step",
    "gpu": "GPU",
    "token": "per token",
    "cost": "cost",
    "load": "load",
    "options": "options",
    "events": "events",
}


def without(boxes: Boxes, hidden: Collection[str]) -> Boxes:
    """Remove the hidden boxes; their neighbours get the space.

    If no box would be left, all stay.
    """
    removed = {name for name in boxes if name.removeprefix(BESIDE) in hidden}
    if not removed or all(name in removed for name in boxes if _is_hideable(name)):
        return boxes
    shown = {name: box for name, box in boxes.items() if name not in removed}
    empty = [boxes[name] for name in boxes if name in removed]
    while empty:
        filled = next((one for one in empty if _fill(shown, one)), None)
        if filled is not None:
            empty.remove(filled)
        elif not _merge(empty):
            break  # no neighbour is as long as the empty space: it stays blank
    return shown


def _is_hideable(name: str) -> bool:
    return name.removeprefix(BESIDE) in HIDEABLE


def _fill(shown: Boxes, empty: Box) -> bool:
    """Enlarge the boxes that cover one whole side of an empty one: above, below, left, right."""
    for side in range(4):
        names = [
            name for name, box in shown.items() if _is_hideable(name) and _touches(box, empty, side)
        ]
        vertical = side < 2
        length = sum(shown[name].width if vertical else shown[name].height for name in names)
        if not names or length != (empty.width if vertical else empty.height):
            continue
        for name in names:
            shown[name] = _joined(shown[name], empty, side)
        return True
    return False


def _touches(box: Box, empty: Box, side: int) -> bool:
    """Whether a box touches a side of the empty box and does not extend beyond it."""
    x, y, width, height = empty
    inside_x = x <= box.x and box.x + box.width <= x + width
    inside_y = y <= box.y and box.y + box.height <= y + height
    match side:
        case 0:
            return inside_x and box.y + box.height == y
        case 1:
            return inside_x and box.y == y + height
        case 2:
            return inside_y and box.x + box.width == x
        case _:
            return inside_y and box.x == x + width


def _joined(box: Box, empty: Box, side: int) -> Box:
    x, y, width, height = box
    match side:
        case 0:
            return Box(x, y, width, height + empty.height)
        case 1:
            return Box(x, empty.y, width, height + empty.height)
        case 2:
            return Box(x, y, width + empty.width, height)
        case _:
            return Box(empty.x, y, width + empty.width, height)


def _merge(empty: list[Box]) -> bool:
    """Join two empty boxes that share a whole side; return whether there were two."""
    for one in empty:
        for other in empty:
            for side in range(4):
                equal = one.width == other.width if side < 2 else one.height == other.height
                if one is not other and equal and _touches(other, one, side):
                    empty.remove(one)
                    empty.remove(other)
                    empty.append(_joined(other, one, side))
                    return True
    return False


def known(names: Iterable[str]) -> frozenset[str]:
    """The names of boxes that can be hidden; others are dropped."""
    return frozenset(name for name in names if name in HIDEABLE)
