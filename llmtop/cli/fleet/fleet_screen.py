"""The fleet's table on the screen. It opens an instance's dashboard, or llmtop on its host."""

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
    """Show the table until the user quits. A dashboard that it opens returns to it."""
    from llmtop.cli.fleet.instance import show_instance, show_through_ssh
    from llmtop.cli.screen.dashboard import require_terminal
    from llmtop.tui.fleet.listing import Choice

    require_terminal()
    server = open_server(url)  # report invalid credentials before the screen opens
    place = server.place
    asyncio.run(server.close())
    choice, message = Choice(by=by), ""
    while True:
        opened, choice = _table(url, match, place, screen, prices, interval_s, choice, message)
        if opened is None:
            return
        instance, by_ssh = opened
        message = show_through_ssh(instance) if by_ssh else ""
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
    message: str,
) -> tuple[tuple[Instance, bool] | None, Choice]:
    """Show the table once. Returns the opened instance (True: through ssh), and the sort order.

    message: a line about the last opened instance, "" for none.
    """
    from llmtop.cli.screen.dashboard import GC_THRESHOLD, draws_unicode
    from llmtop.config.keymap import DEFAULT, Keymap
    from llmtop.operations.wiring import Wiring
    from llmtop.themes.theme import load_themes
    from llmtop.tui.fleet.app import FleetApp
    from llmtop.tui.terminal.shutdown import Shutdown

    opened: list[tuple[Prometheus, Observer]] = []

    async def ask() -> Table:
        if not opened:  # open it here, because sockets belong to the app's event loop
            server = open_server(url)
            opened.append((server, observe(server, match, prices)))
        return await opened[0][1].read_table()

    shutdown = Shutdown()

    async def background() -> None:
        # Without a handler, a signal leaves the terminal in raw mode on its alternate screen.
        shutdown.listen(app.exit)
        # Modules and widgets live until the end: exclude them from collections.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)

    themes, problems = load_themes(Wiring().themes_folder)
    app = FleetApp(
        ask,
        place,
        interval_s,
        choice,
        message=message,
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
        raise LlmtopError(f"the table failed{why}")
    return app.opened, app.choice
