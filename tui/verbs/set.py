"""``llmtop set NAME option=value``: change a running engine."""

from __future__ import annotations

import asyncio

import click

from llmtop import UsageError
from llmtop.engines.options import Change, OptionValue, Outcome
from llmtop.tui.verbs.changes import distinct, entry, say
from llmtop.tui.verbs.output import document, json_flag
from llmtop.tui.verbs.restart import HowToRestart, perform, restart_flags
from llmtop.tui.verbs.running import require_running


@click.command()
@click.argument("name", metavar="NAME|URL")
@click.argument("pairs", metavar="OPTION=VALUE...", nargs=-1, required=True)
@click.option("--evict", is_flag=True, help="Put running requests above a lower cap back at once.")
@click.option("--restart", is_flag=True, help="Restart the engine for what it cannot change live.")
@restart_flags
@json_flag
def command(
    name: str,
    pairs: tuple[str, ...],
    evict: bool,
    restart: bool,
    how: HowToRestart,
    as_json: bool,
) -> int:
    """Change options of NAME while it runs, for example max_num_seqs=64.

    An engine at a URL, that llmtop did not start, changes only what its kind lets anybody change.

    What takes effect only at a restart is refused without --restart. With it, flags that llmtop
    has no name for go behind a --:

        llmtop set vllm max_model_len=4096 --restart -- --enforce-eager
    """
    from llmtop.engines import settings
    from llmtop.tui.wiring import Wiring

    if restart:
        return perform(name, pairs, (), how, as_json=as_json, always=False, evict=evict)
    if how.rolling or how.gpus:
        raise UsageError("--rolling and --gpus go with --restart")
    asked = distinct(pairs)

    async def change() -> tuple[Change, ...]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(name)
        require_running(wiring, endpoint)
        session = wiring.session(endpoint)
        try:
            options, _ = await session.options()
            wanted: dict[str, OptionValue] = {
                key: settings.parse(settings.find(options, key), text)
                for key, text in asked.items()
            }
            return await session.change(wanted, evict=evict)
        finally:
            await session.close()
            await wiring.fetch.close()

    changes = asyncio.run(change())
    if as_json:
        document({"name": name, "changes": [entry(item) for item in changes], "restart": None})
    for item in changes:
        say(item, as_json=as_json)
    return int(any(item.outcome is Outcome.REFUSED for item in changes))
