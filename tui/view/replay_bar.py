"""The last line of a replay: its label, its position and its keys."""

from __future__ import annotations

from llmtop.tui.view.view import ReplayPosition, View
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, Span, fit, join
from llmtop.tui.widgets.row import width as cells_of

LEAST_BAR, MOST_BAR = 12, 60
TITLE = 28
# For a pair of recordings, because a small screen shows only one of them.
OTHER = ("engine.next", "", "the other")
KEYS = (
    ("replay.slower", "replay.faster", "speed"),
    ("replay.back", "replay.on", "10 s"),
    ("replay.before", "replay.next", "marks"),
    ("replay.step", "", "step"),
    ("replay.moment", "", "go to"),
    ("help", "", "help"),
    ("quit", "", "quit"),
)


def moment(seconds: float) -> str:
    """A time as ``2:14`` or ``1:02:14``."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def seconds_of(text: str) -> float | None:
    """Parse ``2:14``, ``1:02:14`` or ``134`` to seconds; None for any other text."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(p.isascii() and p.isdigit() for p in parts):
        return None
    total = 0
    for part in parts:
        total = total * 60 + int(part[:6])
    return float(total)


def replay_row(at: ReplayPosition, view: View, width: int) -> Row:
    """``REPLAY h200-overload  playing 2x  2:14 ====|---- 6:00``, and keys if there is room."""
    head: list[Span] = [(" REPLAY ", "badge-brand"), (f" {at.title[:TITLE]}  ", STRONG)]
    if at.typed is not None:
        words = f"go to {at.typed}{view.glyphs.cursor}"
        return fit([*head, (words, STRONG), ("  enter, or esc", MUTED)], width)
    play, key = ("playing", "pause") if at.playing else ("paused", "play")
    head += [(f"{play} {at.speed:g}x", "warn" if not at.playing else TEXT), ("  ", TEXT)]
    times = [(moment(at.at), STRONG), (" ", TEXT)], [(f" {moment(at.length)}  ", MUTED)]
    room = width - cells_of([*head, *times[0], *times[1]])
    keys: list[Ranked] = [(0, _key(view, "replay.play", "", key))]
    others = (OTHER, *KEYS) if at.pair else KEYS
    keys += [(rank + 1, _key(view, *one)) for rank, one in enumerate(others)]
    bar = min(MOST_BAR, max(LEAST_BAR, room - 70))
    if room < LEAST_BAR:
        return fit([*head, *times[0], *times[1]], width)
    line = [*head, *times[0], *_bar(at, bar, view.glyphs), *times[1]]
    if at.remark:
        return fit([*line, (at.remark, "warn")], width)
    return fit([*line, *join(keys, room - bar - 1)], width)


def _key(view: View, one: str, other: str, words: str) -> list[Span]:
    label = view.keys.pair(one, other) if other else view.keys.label(one)
    return [(label, "key"), (f" {words}", MUTED)]


def _bar(at: ReplayPosition, cells: int, glyphs: Glyphs) -> list[Span]:
    """The position bar: full up to the position, with marks and events."""
    length = at.length or 1.0
    here = min(cells - 1, int(at.at / length * cells))
    marked = {min(cells - 1, int(one / length * cells)) for one in at.places}
    spans: list[Span] = []
    for cell in range(cells):
        if cell == here:
            spans.append((glyphs.full, "now"))
        elif cell in marked:
            spans.append((glyphs.mark, "mark"))
        elif cell < here:
            spans.append((glyphs.full, "brand"))
        else:
            spans.append((glyphs.empty, FAINT))
    return spans
