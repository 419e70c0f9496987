"""Panels without charts: an engine that starts or has ended, and no engine at all."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.core.records import State, Step
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.page import small_rows
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, shorten
from llmtop.wording import format as f


class StartupPanel(Panel):
    """Phase, time compared with the last start, the end of the log; or why the engine ended."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The box."""
        engine = view.engine
        if engine is None or engine.status is None:
            return frame([], width, height, view.glyphs, title="engine")
        body = (
            self._ended(engine, view, width - 6)
            if view.stage is LifecycleView.ENDED
            else self._starting(engine, view, width - 6, height - 2)
        )
        pad = max(0, (height - 2 - len(body)) // 2 - 1)
        title = f"{f.clean(engine.name, 24)} {view.glyphs.dot} {engine.status.state.value}"
        return frame([()] * pad + body, width, height, view.glyphs, title=title)

    def _starting(self, engine: EngineTrack, view: View, cells: int, room: int) -> list[Row]:
        assert engine.status is not None
        record = engine.status.record
        since = engine.status.since
        elapsed = view.now - (record.started_at if since is None else since)
        before = record.previous_startup_s
        phase = f.clean(engine.status.phase, 60) or "waiting for its first log line"
        rows: list[Row] = [
            (
                INDENT,
                (phase, STRONG),
                ("   up to now ", MUTED),
                (f.duration(elapsed), "warn"),
                *_last_time(before),
            ),
            (),
        ]
        if before:
            share = min(1.0, elapsed / before)
            late = "  longer than last time" if elapsed > before * 1.1 else ""
            rows += [
                (INDENT, *bar(share, min(60, cells - 24), "gpu", view.glyphs), (late, "warn")),
                (),
            ]
        command = shorten(f.clean(" ".join(record.command), 400), cells)
        log = _log(engine, cells)
        steps = _steps(engine.status.steps, room - len(rows) - len(log) - 3)
        return [*rows, *steps, (INDENT, (command, MUTED)), (), *log]

    def _ended(self, engine: EngineTrack, view: View, cells: int) -> list[Row]:
        assert engine.status is not None
        record = engine.status.record
        no_reason = (
            "it was stopped"
            if engine.status.state is State.STOPPED
            else "it ended without a reason in its log"
        )
        cause = record.cause or engine.status.phase or no_reason
        code = f"exit code {record.exit_code}" if record.exit_code is not None else ""
        since = engine.status.since
        ended = f"{f.duration(view.now - since)} ago" if since and record.ended_at else ""
        key = view.keys.label("log")
        small = f"   {view.glyphs.dot} ".join(w for w in (code, ended) if w)
        rows: list[Row] = [(INDENT, (shorten(f.clean(cause), cells), STRONG))]
        if record.advice:
            rows.append((INDENT, (shorten(f.clean(record.advice), cells), TEXT)))
        rows += [(INDENT, (small, MUTED)), ()]
        shown = [(INDENT, (shorten(f.clean(line), cells), MUTED)) for line in record.excerpt]
        return [
            *rows,
            *(shown or _log(engine, cells)),
            (INDENT, (key, "key"), (" shows the log", MUTED)),
        ]


INDENT: Span = ("   ", TEXT)


def _last_time(before: float | None) -> list[Span]:
    return [(f" ({f.duration(before)} last time)", MUTED)] if before else []


def _steps(steps: Sequence[Step], room: int) -> list[Row]:
    """A row for each phase, the newest ones if not all fit; [] if fewer than two are known."""
    if len(steps) < 2 or room < 2:
        return []
    column = max(len(step.word) for step in steps) + 3
    rows: list[Row] = []
    for step in steps[-room:]:
        now = step is steps[-1]
        # Whole seconds while it runs: a redraw changes one digit.
        took = (f.duration if now else f.latency)(step.took_s).rjust(6)
        words: list[Span] = [(step.word.ljust(column), STRONG if now else MUTED)]
        words.append((took, "warn" if now else TEXT))
        if step.before_s is not None:
            words.append((f" ({f.latency(step.before_s)} last time)", MUTED))
        rows.append((INDENT, *words))
    return [*rows, ()]


def _log(engine: EngineTrack, cells: int) -> list[Row]:
    """The last lines of the log, at most three."""
    lines = [f.clean(line) for line in engine.log_tail[-4000:].splitlines()[-3:]]
    return [(INDENT, (shorten(line, cells), MUTED)) for line in lines if line]


WELCOME: tuple[tuple[str, str], ...] = (
    ("llmtop demo", "a simulated engine under a load ramp; needs no GPU"),
    ("llmtop run vllm MODEL", "start vLLM and watch it"),
    ("llmtop attach URL", "watch an engine that already runs"),
    ("llmtop --help", "the rest"),
)


class WelcomePanel(Panel):
    """No engine: the commands to start with."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """A few commands, in the middle."""
        body: list[Row] = [(INDENT, ("No engine runs here. What to type next:", STRONG)), ()]
        column = max(len(command) for command, _ in WELCOME) + 3
        for command, words in WELCOME:
            text = shorten(words, max(0, width - column - 6))
            body.append((INDENT, (command.ljust(column), "key"), (text, MUTED)))
        pad = max(0, (height - 2 - len(body)) // 2 - 1)
        return frame([()] * pad + body, width, height, view.glyphs, title="llmtop")


class SmallPanel(Panel):
    """One line for a terminal that is too small for anything else."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The line, in the middle."""
        return small_rows(width, height)
