"""The visible panels and their positions: three layouts, chosen by terminal size. Pure.

Panels disappear in this order when space is short: the charts of ITL and of speculation or
requests/s and the cost (large layout), the figures per token, GPU, events, tokens/s and queue. KV
cache, TTFT, the pulse and the state line always stay. The state line is always the first row.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from llmtop.tui.view.view import LifecycleView

SMALLEST = (60, 16)
NORMAL = (100, 32)
LARGE = (160, 44)
ROOMY = 35  # rows below the pulse; from here on the normal layout shows the figures per token
BESIDE = "beside-"  # prefix of the panels of the second engine
PAIRED = ("ttft", "tokens", "kv", "queue", "itl")  # of two engines side by side
CHART_ORDER = ("ttft", "tokens", "kv", "queue", "itl", "speculation", "requests", "steps")


class Box(NamedTuple):
    """The position and size of a panel, in cells."""

    x: int
    y: int
    width: int
    height: int


Boxes = dict[str, Box]


class Facts(Struct, frozen=True):
    """The conditions besides the size that decide which panels are shown.

    stage: of the selected engine. engines, gpus, options: their number. editing: the options have
    the keyboard and get space. speculates: the engine drafts tokens, or can do so without a
    restart. beside: two engines side by side, if there is space and nothing is edited. captioned: a
    tour has two lines below the state line (one in the lowest terminal) and no line of keys,
    because each key ends it. steps: the engine shows its scheduler's steps.
    """

    stage: LifecycleView = LifecycleView.RUNNING
    engines: int = 1
    gpus: int = 1
    options: int = 8
    editing: bool = False
    speculates: bool = False
    beside: bool = False
    captioned: bool = False
    enlarged: str | None = None  # a chart that takes the place of all boxes below the pulse
    steps: bool = False


COMMON = Facts()


def arrange(width: int, height: int, facts: Facts = COMMON) -> Boxes:
    """A box for each panel that is shown."""
    stage, engines, editing = facts.stage, facts.engines, facts.editing
    gpus, options = facts.gpus, facts.options
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return _tiny(width, height, stage)
    keys = 0 if facts.captioned else 1
    boxes = {"keys": Box(0, height - 1, width, 1)} if keys else {}
    if stage is LifecycleView.EMPTY:
        return boxes | {"pulse": Box(0, 0, width, 1), "welcome": Box(0, 1, width, height - 2)}
    paired = facts.beside and not editing and pairs(width, height)
    half = width // 2 if paired else width
    boxes["state"] = Box(0, 0, half, 1)
    top = 1
    if facts.captioned:
        boxes["caption"] = Box(0, top, width, 2 if height > SMALLEST[1] else 1)
        top += boxes["caption"].height
    boxes["pulse"] = Box(0, top, half, 1)
    if paired:
        boxes[f"{BESIDE}state"] = Box(half, 0, width - half, 1)
        boxes[f"{BESIDE}pulse"] = Box(half, top, width - half, 1)
    top += 1
    if engines > 1:
        # Two rows of charts with five lines each, the panels below and the pulse need 26 lines.
        most = min(8, height - 26) if height >= NORMAL[1] else 3 if height >= 22 else 1
        boxes["engines"] = Box(0, top, width, min(engines, most))
        top += boxes["engines"].height
    body = Box(0, top, width, height - keys - top)
    if facts.enlarged is not None and stage is LifecycleView.RUNNING and not editing:
        return boxes | {facts.enlarged: body}
    if paired:
        return boxes | _pair(body)
    if width >= LARGE[0] and height >= LARGE[1]:
        boxes |= _large(body, gpus, options, editing, facts)
    elif width >= NORMAL[0] and height >= NORMAL[1]:
        boxes |= _normal(body, gpus, options, editing)
    else:
        boxes |= _small(body, options, editing)
    if stage in (LifecycleView.STARTING, LifecycleView.ENDED):
        boxes = _startup(boxes)
    return boxes


def _tiny(width: int, height: int, stage: LifecycleView) -> Boxes:
    """A terminal that is too small: the state line and the reason."""
    if stage is LifecycleView.EMPTY or height < 3:
        return {"small": Box(0, 0, width, height)}
    return {"state": Box(0, 0, width, 1), "small": Box(0, 1, width, height - 1)}


def pairs(width: int, height: int) -> bool:
    """Whether there is space for two engines side by side."""
    return width >= NORMAL[0] and height >= NORMAL[1]


def _pair(body: Box) -> Boxes:
    """Two equally wide columns of the same charts; load and events below both."""
    x, y, width, height = body
    half = width // 2
    names = PAIRED if height >= 50 else PAIRED[:4]
    low = max(5, min(9, height - 6 * len(names)))
    room = height - low
    boxes: Boxes = {}
    for number, name in enumerate(names):
        tall = room * (number + 1) // len(names) - room * number // len(names)
        boxes[name] = Box(x, y, half, tall)
        boxes[BESIDE + name] = Box(x + half, y, half, tall)
        y += tall
    boxes["load"] = Box(x, y, half, low)
    boxes["events"] = Box(x + half, y, width - half, low)
    return boxes


def _small(body: Box, options: int, editing: bool) -> Boxes:
    """Two columns: charts, then options and load; below them one line each for GPU and events."""
    x, y, width, height = body
    half = width // 2
    low = 6
    extra = 0 if height < 18 else 1 if height < 20 else 2 if height < 24 else 3
    charts = height - low - extra
    second = 0 if charts < 10 else max(5, charts * 6 // 13)
    first = charts - second
    boxes = {"ttft": Box(x, y, half, first), "kv": Box(x + half, y, width - half, first)}
    y += first
    if editing:
        room = height - first
        table = min(options + 3, room)  # one for the hint
        rest = room - table
        if rest >= 5:  # enough for the charts that show the effect first
            boxes |= _row(("tokens", "queue"), x, y, width, rest)
        else:
            table = room
        boxes["options"] = Box(x, y + room - table, width, table)
        return boxes
    if second:
        boxes["tokens"] = Box(x, y, half, second)
        boxes["queue"] = Box(x + half, y, width - half, second)
        y += second
    boxes["options"] = Box(x, y, half, low)
    boxes["load"] = Box(x + half, y, width - half, low)
    y += low
    if extra >= 1:
        boxes["events"] = Box(x, y + (extra > 1), width, extra - (extra > 1))
    if extra >= 2:
        boxes["gpu"] = Box(x, y, width, 1)
    return boxes


def _normal(body: Box, gpus: int, options: int, editing: bool) -> Boxes:
    """Four charts; below them GPU, figures per token and load left, options and events right."""
    x, y, width, height = body
    half = width // 2
    token = 5 if height >= ROOMY else 0
    low = max(13 + token, min(20, height * 2 // 5 + 1))
    first = (height - low + 1) // 2
    second = height - low - first
    boxes = _row(("ttft", "tokens"), x, y, width, first)
    boxes |= _row(("kv", "queue"), x, y + first, width, second)
    y += first + second
    gpu = 5 if gpus <= 3 else min((gpus + 1) // 2 + 2, low - token - 7)
    boxes["gpu"] = Box(x, y, half, gpu)
    if token:
        boxes["token"] = Box(x, y + gpu, half, token)
    boxes["load"] = Box(x, y + gpu + token, half, low - gpu - token)
    table = max(5, min(options + (3 if editing else 2), low - (0 if editing else 4)))
    boxes["options"] = Box(x + half, y, width - half, table)
    if table < low:
        boxes["events"] = Box(x + half, y + table, width - half, low - table)
    return boxes


def _large(body: Box, gpus: int, options: int, editing: bool, facts: Facts) -> Boxes:
    """Six charts in two columns, the steps below them; everything else in a third column."""
    x, y, width, height = body
    side = max(60, width // 3)
    wide = width - side
    steps = max(8, height // 4) if facts.steps else 0
    room = height - steps
    rows = (room - room // 3 * 2, room // 3, room // 3)
    boxes: Boxes = {"steps": Box(x, y + room, wide, steps)} if steps else {}
    top = y
    last = "speculation" if facts.speculates else "requests"
    names = (("ttft", "tokens"), ("kv", "queue"), ("itl", last))
    for pair, tall in zip(names, rows, strict=True):
        boxes |= _row(pair, x, top, wide, tall)
        top += tall
    x += wide
    gpu = 7 if gpus <= 1 else min(gpus, 8) + 2
    cost = 6
    table = max(8, min(options + 3, height - gpu - cost - 13 - 8))
    load = max(9, min(15, height - gpu - cost - table - 8))
    boxes["gpu"] = Box(x, y, side, gpu)
    boxes["cost"] = Box(x, y + gpu, side, cost)
    boxes["load"] = Box(x, y + gpu + cost, side, load)
    boxes["options"] = Box(x, y + gpu + cost + load, side, table)
    used = gpu + cost + load + table
    boxes["events"] = Box(x, y + used, side, height - used)
    return boxes


def _row(names: tuple[str, ...], x: int, y: int, width: int, height: int) -> Boxes:
    each, out = width // len(names), {}
    for number, name in enumerate(names):
        last = number == len(names) - 1
        out[name] = Box(x + number * each, y, width - number * each if last else each, height)
    return out


def _startup(boxes: Boxes) -> Boxes:
    """Replace the charts by the start-up view, because there is no data to draw."""
    charts = [boxes.pop(name) for name in CHART_ORDER if name in boxes]
    left, top = min(b.x for b in charts), min(b.y for b in charts)
    right = max(b.x + b.width for b in charts)
    bottom = max(b.y + b.height for b in charts)
    return boxes | {"startup": Box(left, top, right - left, bottom - top)}
