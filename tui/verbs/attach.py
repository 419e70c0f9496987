"""``llmtop attach URL...``: the dashboard on engines that somebody else started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.tui.verbs.screen import ScreenFlags, screen_flags

if TYPE_CHECKING:
    from llmtop.engines.endpoint import Endpoint
    from llmtop.tui.wiring import Wiring


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@screen_flags
def command(urls: tuple[str, ...], screen: ScreenFlags) -> None:
    """Open the dashboard on the engines that answer at URL..., for example :8000.

    Of several, those that do not answer yet are shown as such, and join once they do.
    """
    from llmtop.tui import garbage
    from llmtop.tui.verbs import dashboard
    from llmtop.tui.wiring import Wiring

    dashboard.require_terminal()
    garbage.start()
    wiring = Wiring()

    async def recognise() -> list[Endpoint | LlmtopError]:
        try:
            return await asyncio.gather(*(look(wiring, url) for url in dict.fromkeys(urls)))
        finally:
            await wiring.fetch.close()

    found = dict(zip(dict.fromkeys(urls), asyncio.run(recognise()), strict=True))
    missing = {url: one for url, one in found.items() if isinstance(one, LlmtopError)}
    endpoints = [one for one in found.values() if not isinstance(one, LlmtopError)]
    if not endpoints:
        raise next(iter(missing.values()))
    dashboard.show(
        Wiring(),
        endpoints=endpoints,
        missing={url: error.message for url, error in missing.items()},
        select=endpoints[0].name,
        screen=screen,
    )


async def look(wiring: Wiring, url: str) -> Endpoint | LlmtopError:
    """The engine at a URL, or why it cannot be shown. UsageError for what cannot be a URL."""
    try:
        return await wiring.endpoint(url)
    except UsageError:
        raise
    except LlmtopError as error:
        return error
