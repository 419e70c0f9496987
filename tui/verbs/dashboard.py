"""The dashboard, from whichever verb it is opened: builds the real parts and runs the app."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.engines.endpoint import Endpoint
from llmtop.loadgen.plan import Plan, Prompts
from llmtop.tui.verbs.screen import ScreenFlags

if TYPE_CHECKING:
    from llmtop.tui.wiring import Wiring


def require_terminal() -> None:
    """A UsageError, with the way out, where no dashboard can be drawn."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the dashboard needs a terminal", "without one: `llmtop once NAME --json`, `llmtop ps`"
        )
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UsageError(
            f"this terminal (TERM={term!r}) cannot draw the dashboard",
            "use `llmtop once NAME --json` and `llmtop ps --json`, or set TERM",
        )


def show(
    wiring: Wiring,
    *,
    endpoints: Sequence[Endpoint] | None = None,
    select: str | None = None,
    plan: Plan | None = None,
    prompts: Prompts | None = None,
    screen: ScreenFlags | None = None,
) -> None:
    """Run the dashboard until the person leaves it.

    endpoints: which engines (default: all that llmtop started and that live, and those that
    another llmtop starts meanwhile). plan: a load for the selected engine as soon as it is ready.
    """
    from llmtop.themes.theme import load_themes
    from llmtop.tui.app import LlmtopApp
    from llmtop.tui.stage import Stage

    look = screen or ScreenFlags()
    follow_new = endpoints is None
    if endpoints is None:
        records = [record for record in wiring.supervisor.records() if record.ended_at is None]
        endpoints = [wiring.owned(record.name) for record in records]
    themes, problems = load_themes(wiring.themes_folder)
    stage = Stage(
        wiring,
        endpoints,
        select=select,
        prompts=prompts,
        interval=look.interval,
        follow_new=follow_new,
    )
    perform = stage.perform(plan)

    async def background() -> None:
        # Else a SIGTERM would leave the terminal raw and on its alternate screen.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.exit)
        await perform()

    app = LlmtopApp(
        stage.store,
        stage.conductor,
        interval=look.interval,
        themes=themes,
        problems=problems,
        theme=look.theme,
        readonly=look.readonly,
        ascii=look.ascii,
        clock=stage.timeline.now,
        background=background,
    )
    stage.news = app.show_now
    try:
        app.run()
    finally:
        stage.release()
    for line in stage.farewell():
        click.echo(line)
    if app.return_code:
        raise LlmtopError("the dashboard ended with a fault", "engines go on; see `llmtop ps`")
