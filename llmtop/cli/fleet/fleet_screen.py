"""The table on the screen, and what it opens: an instance's dashboard, or llmtop on its host."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError
from llmtop.cli.common.interrupts import INTERRUPTED
from llmtop.cli.fleet.fleet import observe, open_server
from llmtop.cli.screen.screen_options import ScreenFlags

if TYPE_CHECKING:
    from llmtop.fleet.instances import Instance
    from llmtop.fleet.observer import Observer, Table
    from llmtop.fleet.power import Prices
    from llmtop.fleet.promql import Prometheus
    from llmtop.tui.fleet.listing import Choice


def show(
    url: str,
    match: str,
    by: tuple[str, ...],
    screen: ScreenFlags,
    prices: Prices,
    interval_s: float,
) -> None:
    """The table until the person leaves it; what it opens comes back to it."""
    from llmtop.cli.fleet.instance import show_instance, show_through_ssh
    from llmtop.cli.screen.dashboard import require_terminal
    from llmtop.tui.fleet.listing import Choice

    require_terminal()
    server = open_server(url)  # credentials that are wrong cost a line, not a screen
    place = server.place
    asyncio.run(server.close())
    choice, said = Choice(by=by), ""
    while True:
        opened, choice = _table(url, match, place, screen, prices, interval_s, choice, said)
        if opened is None:
            return
        instance, by_ssh = opened
        said = show_through_ssh(instance) if by_ssh else ""
        if not by_ssh:
            show_instance(url, instance, screen)


def _table(
    url: str,
    match: str,
    place: str,
    screen: ScreenFlags,
    prices: Prices,
    interval_s: float,
    choice: Choice,
    said: str,
) -> tuple[tuple[Instance, bool] | None, Choice]:
    """One time of the table: what was chosen there, and how it was sorted then."""
    from llmtop.cli.screen.dashboard import GARBAGE, draws_unicode
    from llmtop.config.keymap import DEFAULT, Keymap
    from llmtop.operations.wiring import Wiring
    from llmtop.themes.theme import load_themes
    from llmtop.tui.fleet.app import FleetApp
    from llmtop.tui.terminal.shutdown import Shutdown

    held: list[tuple[Prometheus, Observer]] = []

    async def ask() -> Table:
        if not held:  # in the app's own loop
            server = open_server(url)
            held.append((server, observe(server, match, prices)))
        return await held[0][1].read_table()

    shutdown = Shutdown()

    async def background() -> None:
        # Else a signal would leave the terminal raw and on its alternate screen.
        shutdown.listen(app.exit)
        # Modules and widgets stay to the end: the collector need not look at them.
        gc.freeze()
        gc.set_threshold(GARBAGE, 20, 20)

    themes, problems = load_themes(Wiring().themes_folder)
    app = FleetApp(
        ask,
        place,
        interval_s,
        choice,
        message=said,
        themes=themes,
        problems=problems,
        theme=screen.theme,
        ascii=screen.ascii or not draws_unicode(),
        keys=Keymap(screen.config.table.keys) if screen.config is not None else DEFAULT,
        mouse=screen.mouse,
        background=background,
    )
    app.run(mouse=screen.mouse)
    shutdown.finish()
    if app.interrupted or shutdown.exit_code:
        raise click.exceptions.Exit(shutdown.exit_code or INTERRUPTED)
    if app.return_code:
        why = f": {app.fault}" if app.fault else ""
        raise LlmtopError(f"the table ended with a fault{why}")
    return app.opened, app.choice
