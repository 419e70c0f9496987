"""The dashboard, from whichever verb it is opened: builds the real parts and runs the app."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.engines.records import EngineRecord, State
from llmtop.tui import garbage
from llmtop.tui.verbs.screen import ScreenFlags
from llmtop.tui.verbs.touring import TourFlags, ask, put_back

if TYPE_CHECKING:
    from llmtop.engines.endpoint import Endpoint
    from llmtop.loadgen.plan import Plan, Prompts
    from llmtop.tui.wiring import Wiring


SETTLED_S = 3.0  # the screen is all there by then, and has painted


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


def draws_unicode() -> bool:
    """Whether the locale has the characters of the screen; a console of ISO 8859 has not."""
    try:
        "╭╎●░⣿▲".encode(getattr(sys.__stderr__ or sys.__stdout__, "encoding", "ascii"))
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def show(
    wiring: Wiring,
    *,
    endpoints: Sequence[Endpoint] | None = None,
    missing: Mapping[str, str] | None = None,
    select: str | None = None,
    plan: Plan | None = None,
    prompts: Prompts | None = None,
    launched: EngineRecord | None = None,
    screen: ScreenFlags | None = None,
    tour: TourFlags | None = None,
) -> None:
    """Run the dashboard until the person leaves it.

    endpoints: which engines (default: all that llmtop started and that live, and those that
    another llmtop starts meanwhile). missing: URLs that do not answer yet, and why. plan: a load
    for the selected engine as soon as it is ready. launched: the engine that was just started for
    this; LlmtopError when it did not come up.
    tour: play it on the selected engine.
    """
    from llmtop.tui import spared

    spared.import_app()
    from llmtop.themes.theme import load_themes
    from llmtop.tui.app import LlmtopApp
    from llmtop.tui.arenas import share_one_heap
    from llmtop.tui.departure import Departure
    from llmtop.tui.keymap import DEFAULT, Keymap
    from llmtop.tui.stage import Stage

    share_one_heap()
    garbage.start()
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
        missing=missing or {},
    )
    perform = stage.perform(plan)
    keys = Keymap(look.config.table.keys) if look.config is not None else DEFAULT
    stage.conductor.keys = stage.experiments.keys = keys
    show_tour = stage.tour(tour.speed) if tour is not None else None

    async def background() -> None:
        asyncio.get_running_loop().call_later(SETTLED_S, garbage.settle)
        # Else a signal would leave the terminal raw and on its alternate screen.
        departure.listen(app.exit)
        if show_tour is None:
            await perform()
            return
        show = asyncio.create_task(show_tour.play())
        try:
            await perform()
        finally:
            show.cancel()
            with suppress(asyncio.CancelledError):
                await show

    app = LlmtopApp(
        stage.store,
        stage.conductor,
        interval=look.interval,
        themes=themes,
        problems=problems,
        theme=look.theme,
        readonly=look.readonly,
        ascii=look.ascii or not draws_unicode(),
        gpu_hour=look.gpu_hour,
        low_bandwidth=look.low_bandwidth,
        clock=stage.timeline.now,
        background=background,
        keys=keys,
        mouse=look.mouse,
        config=look.config,
        tour=show_tour,
    )
    stage.news = app.show_now
    departure = Departure()
    try:
        app.run(mouse=look.mouse)
    finally:
        stage.release()
        if show_tour is not None:
            put_back(wiring, show_tour)
    for line in stage.farewell():
        click.echo(line)
    departure.finish()
    if launched is not None:
        status = wiring.supervisor.status(launched)
        if status.state in (State.FAILED, State.LOST):
            raise LlmtopError(
                f"{launched.name!r} did not stay up: {status.phase or status.state.value}",
                status.record.advice or f"read its log: llmtop logs {launched.name}",
            )
    if app.return_code:
        raise LlmtopError("the dashboard ended with a fault", "engines go on; see `llmtop ps`")


def show_tour(name: str, tour: TourFlags, screen: ScreenFlags, *, yes: bool) -> None:
    """The tour on an engine that runs, by name or URL, once that was agreed to."""
    from llmtop.tui.wiring import Wiring

    if screen.readonly:
        raise UsageError("a tour changes what it shows", "leave --tour or --readonly away")
    wiring = Wiring()

    async def find() -> Endpoint:
        try:
            return await wiring.endpoint(name)
        finally:
            await wiring.fetch.close()

    endpoint = asyncio.run(find())
    ask(endpoint.name, endpoint.url, simulated=endpoint.adapter.simulated, yes=yes)
    show(Wiring(), endpoints=[endpoint], select=endpoint.name, screen=screen, tour=tour)
