"""``llmtop attach URL...``: the dashboard on engines that llmtop did not start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.wiring import Wiring


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@cacert_flag
@screen_flags
def command(urls: tuple[str, ...], screen: ScreenFlags) -> None:
    """Open the dashboard on the engines at URL..., for example :8000.

    At least one must answer. The others are shown as absent until they answer.
    """
    from llmtop.cli.screen import dashboard
    from llmtop.operations.wiring import Wiring
    from llmtop.wording.sentences import why

    dashboard.require_terminal()
    wiring = Wiring()

    async def detect() -> list[Endpoint | LlmtopError]:
        try:
            return await asyncio.gather(*(find(wiring, url) for url in dict.fromkeys(urls)))
        finally:
            await wiring.fetch.close()

    found = dict(zip(dict.fromkeys(urls), asyncio.run(detect()), strict=True))
    missing = {url: one for url, one in found.items() if isinstance(one, LlmtopError)}
    endpoints = [one for one in found.values() if not isinstance(one, LlmtopError)]
    if not endpoints:
        raise next(iter(missing.values()))
    dashboard.show(
        Wiring(),
        endpoints=endpoints,
        missing={url: why(error) for url, error in missing.items()},
        select=endpoints[0].name,
        screen=screen,
    )


async def find(wiring: Wiring, url: str) -> Endpoint | LlmtopError:
    """Return the engine at a URL, or the error of its detection. UsageError for an invalid URL."""
    try:
        return await wiring.endpoint(url)
    except UsageError:
        raise
    except LlmtopError as error:
        return error
