"""Help: every key, and what each number means, where it comes from, and when it lies."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen

from llmtop.tui.screens.boxed import TightCompositor
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, TEXT, Row

KEYS: tuple[tuple[str, str], ...] = (
    ("+  =", "more load, held at the new level: its shape stops. Without one: starts one at 1"),
    ("-", "less load, held at the new level: its shape stops"),
    ("space", "hold the load where it is; again: let its shape go on"),
    ("b", "a short burst on top of it"),
    ("0", "stop the load"),
    ("o", "change options"),
    ("l", "the engine's log"),
    ("n  tab", "the next engine"),
    ("shift+tab", "the engine before"),
    ("v", "the next engine beside this one, on the same axes; again: back"),
    ("t", "the next theme"),
    ("?  f1", "this help"),
    ("ctrl+z", "suspend; fg brings it back"),
    ("q  ctrl+q", "quit: asks whether the engines go on running"),
    ("ctrl+c", "the same"),
)

OPTION_KEYS: tuple[tuple[str, str], ...] = (
    ("up down k j", "choose an option; while changing one that has choices: up and down choose"),
    ("enter space", "change it: type, then enter. A switch flips at once. A restart asks first."),
    ("e", "while max_num_seqs is lowered: evict, that is put running requests back in the queue"),
    ("esc", "back: first the value stays as it is, then the options are left"),
    ("o  q", "leave the options"),
)

NUMBERS: tuple[tuple[str, str], ...] = (
    ("run", "requests in the batch now / max_num_seqs in force. Engine's gauge."),
    (
        "wait",
        "requests queued in the engine. Engine's gauge, sampled: a short queue can be missed.",
    ),
    (
        "oldest",
        "age of our oldest request without a first token. It grows while p95 still looks well.",
    ),
    ("cap", "how many requests may be in the batch: max_num_seqs as it is now."),
    ("KV", "share of KV-cache blocks in use. Tokens are share x capacity, so rounded to blocks."),
    ("prefix hit", "tokens found in the prefix cache / tokens looked up, over the window."),
    (
        "preempted",
        "requests put back in the window because KV blocks ran out; their work is done anew.",
    ),
    ("TTFT", "prompt sent to first token. client: measured here, with network and queue."),
    (
        "server p95",
        "the engine's own, interpolated in its histogram's buckets, so only as fine as they are.",
    ),
    ("<300ms", "all that the buckets can tell: below the first bound. >80s: beyond the last one."),
    (
        "n=214/10s",
        "observations behind a percentile, and the window. Few observations: a poor p99.",
    ),
    ("tok/s", "generated tokens a second, from the engine's counter."),
    ("decode", "the same, where it stands beside prefill."),
    ("prefill", "prompt tokens a second that the engine reads before a first token."),
    ("TPOT", "(end to end - TTFT) / (tokens - 1), one value a request. Client's."),
    ("ITL", "gap between two tokens of a stream. With speculation several tokens share one gap."),
    ("accepted", "draft tokens that the model kept / tokens drafted, over the window."),
    (
        "tok/step",
        "tokens a step brings each request with speculation: 1 + accepted a draft. by position: "
        "kept so far into the draft.",
    ),
    ("got", "streams past their first token, or requests done a second: beside what was asked."),
    ("tok/J", "generated tokens over NVML's energy counter, last minute. Whole GPUs: others' too."),
    ("$/M tok", "--gpu-hour over what the engine generated an hour, from its last minute."),
    ("idle", "share of GPU time without any kernel (NVML). A busy GPU can still be badly used."),
    ("KV never used", "KV memory above the highest occupancy seen since llmtop watches."),
    ("asked", "what the load's shape calls for now: streams, or requests a second."),
    ("in flight", "requests of our load that were sent and have not ended."),
    ("first token awaited", "those of them without a first token: queued, or in prefill."),
    (
        "client",
        "whether the load generator kept up; when it did not, its latencies are not the engine's.",
    ),
    (
        "lag",
        "how late we read a token: our clock minus the kernel's receive stamp. Not the engine's.",
    ),
    (
        "util",
        "share of time in which some kernel ran: near 100% at one stream already. Look at power.",
    ),
    ("past knee", "in 30 s more was asked, TTFT rose by a quarter, and tok/s stayed within 8%."),
    ("queueing", "requests waited in most of the last 15 s."),
    ("--", "not known. 0 is a real zero."),
    ("stale", "the engine does not answer: the numbers are the last ones it gave."),
    ("live", "options: takes effect at the next step. restart: asks, then restarts."),
)


class HelpScreen(Screen[None]):
    """Scrolls where it does not fit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "app.pop_screen", "back", id="help.back"),
        Binding("up,k", "scroll(-1)", "up", id="help.up"),
        Binding("down,j", "scroll(1)", "down", id="help.down"),
        Binding("pageup", "scroll(-12)", "a page up", id="help.page_up"),
        Binding("pagedown,space", "scroll(12)", "a page down", id="help.page_down"),
    ]

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._top = 0
        self._compositor = TightCompositor()

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="help")

    def on_mount(self) -> None:
        """Paint once there is a size."""
        self.call_after_refresh(self.paint)

    def on_resize(self, event: Resize) -> None:
        """Paint anew."""
        self.call_after_refresh(self.paint)

    def paint(self) -> None:
        """The lines that fit."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 20 or height < 4:
            return
        rows = help_rows(width - 4)
        self._top = max(0, min(self._top, len(rows) - (height - 2)))
        more = len(rows) - self._top - (height - 2)
        foot = [("esc", "key"), (" back", MUTED)]
        right = [("up down", "key"), (f" {more} more lines", MUTED)] if more > 0 else []
        body = rows[self._top :]
        box = frame(body, width, height, self._glyphs, title="help", foot=foot, foot_right=right)
        canvas.put(box, self._glyphs)

    def action_scroll(self, lines: int) -> None:
        """Down (positive) or up."""
        self._top = max(0, self._top + lines)
        self.paint()


def help_rows(cells: int) -> list[Row]:
    """All of it in rows of ``cells`` cells, long sentences broken between words."""
    rows: list[Row] = [(), ((" Keys", "title"),)]
    for key, words in KEYS:
        rows += _entry(key, words, cells)
    rows += [(), ((" In the options", "title"),)]
    for key, words in OPTION_KEYS:
        rows += _entry(key, words, cells)
    rows += [(), ((" Numbers", "title"),)]
    for name, words in NUMBERS:
        rows += _entry(name, words, cells)
    return rows


def _entry(name: str, words: str, cells: int) -> list[Row]:
    column, out, line = 13, [], ""
    for word in words.split():
        if line and len(line) + 1 + len(word) > cells - column - 1:
            out.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    out.append(line)
    rows: list[Row] = [((" " * column, TEXT), (line, TEXT)) for line in out]
    if len(name) + 2 > column:  # a long name has a line of its own
        return [((f" {name}", "key"),), *rows]
    return [((f" {name}".ljust(column), "key"), (out[0], TEXT)), *rows[1:]]
