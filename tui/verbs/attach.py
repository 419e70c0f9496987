"""``llmtop attach URL...``: the dashboard on engines that somebody else started."""

from __future__ import annotations

import asyncio

import click

from llmtop.tui.verbs.screen import ScreenFlags, screen_flags


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@screen_flags
def command(urls: tuple[str, ...], screen: ScreenFlags) -> None:
    """Open the dashboard on the engines that answer at URL..., for example :8000."""
    from llmtop.engines.endpoint import Endpoint
    from llmtop.tui import garbage
    from llmtop.tui.verbs import dashboard
    from llmtop.tui.wiring import Wiring

    dashboard.require_terminal()
    garbage.start()
    wiring = Wiring()

    async def recognise() -> list[Endpoint]:
        try:
            return [await wiring.endpoint(url) for url in urls]
        finally:
            await wiring.fetch.close()

    endpoints = asyncio.run(recognise())
    dashboard.show(Wiring(), endpoints=endpoints, select=endpoints[0].name, screen=screen)
