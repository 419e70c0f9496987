"""``llmtop set NAME option=value``: change a running engine."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import click
from click.core import ParameterSource

from llmtop import UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import require_running
from llmtop.cli.options.canary import Plan, Result, carry_out
from llmtop.cli.options.canary_engine import is_selection
from llmtop.cli.options.changes import distinct, entry, print_change
from llmtop.cli.options.restart import perform
from llmtop.cli.options.restart_flags import HowToRestart, restart_flags
from llmtop.cli.start.run import FLAGS, PassingFlags
from llmtop.engines.core.options import Change, OptionValue
from llmtop.wording.sentences import flag_words

# A change applies at the next step, and a step with long prompts takes seconds.
STEP_WAIT_S = 10.0


@click.command(cls=PassingFlags)
@click.argument("name", metavar="NAME|URL", shell_complete=engine_names)
@click.argument("pairs", metavar="OPTION=VALUE...", nargs=-1)
@cacert_flag
@click.option(
    "--evict",
    is_flag=True,
    help="Evict: put running requests above a lower limit back into the queue at once.",
)
@click.option(
    "--restart", is_flag=True, help="Restart the engine for options that it cannot change live."
)
@restart_flags
@click.option(
    "--canary",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Change N engines of model=GLOB first; the rest only when these are not worse.",
)
@click.option(
    "--watch",
    "watch_for",
    default=60.0,
    show_default=True,
    type=Span(5, 3600),
    help="Time over which the canaries are compared with the others.",
)
@click.option(
    "--slo",
    metavar="LIMITS",
    help="Latency limits that a canary is judged by: ttft=500ms,tpot=50ms.",
)
@json_flag
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    pairs: tuple[str, ...],
    evict: bool,
    restart: bool,
    how: HowToRestart,
    canary: int | None,
    watch_for: float,
    slo: str | None,
    as_json: bool,
) -> int:
    """Change options of NAME while it runs, for example max_num_seqs=64.

    An engine that llmtop did not start changes only the options that its HTTP server allows.

    A change is sent to all data-parallel ranks; the result shows how many applied it. An option
    that needs a restart is refused without --restart. With --restart, other flags of the engine
    follow after --, and --without removes a flag:

        llmtop set vllm max_model_len=4096 --restart -- --enforce-eager

    With --canary N, llmtop changes N engines of this machine first and compares them with the
    others while they serve. If they are not worse, the others are changed too. If they are worse or
    cannot be judged, their options are put back:

        llmtop set 'model=llama-*' max_num_seqs=128 --canary 1 --watch 60s --slo ttft=500ms
    """
    from llmtop.engines.tuning import resolution
    from llmtop.operations.wiring import Wiring

    flags: tuple[str, ...] = ctx.meta.get(FLAGS, ())
    if canary is not None or is_selection(name):
        if restart or evict or flags:
            raise UsageError("--canary changes options live: no --restart, no --evict, no flags")
        return by_canary(name, pairs, canary, watch_for, slo, as_json=as_json)
    watched = ctx.get_parameter_source("watch_for") is ParameterSource.COMMANDLINE
    if slo is not None or watched:
        raise UsageError(f"{'--watch' if slo is None else '--slo'} needs --canary")
    if not (pairs or (restart and (flags or how.without))):
        raise UsageError("there is nothing to change", "write it as max_num_seqs=64")
    if restart:
        return perform(name, pairs, flags, how, as_json=as_json, always=False, evict=evict)
    if flags:
        raise UsageError(
            f"flags of the engine ({flag_words(flags)}) take effect only at a restart",
            "add --restart before the --",
        )
    if how.rolling or how.gpus or how.without:
        raise UsageError("--rolling, --gpus and --without need --restart")
    asked = distinct(pairs)

    async def change() -> tuple[str, tuple[Change, ...]]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(name)
        trouble = require_running(wiring, endpoint)
        session = wiring.session(endpoint)
        try:
            options, _ = await session.options()
            wanted: dict[str, OptionValue] = {
                key: resolution.parse(resolution.find(options, key), text)
                for key, text in asked.items()
            }
            changes = await session.change(wanted, evict=evict, trouble=trouble, wait_s=STEP_WAIT_S)
            return trouble, changes
        finally:
            await session.close()
            await wiring.fetch.close()

    trouble, changes = asyncio.run(change())
    if as_json:
        document({"name": name, "changes": [entry(item) for item in changes], "restart": None})
    for item in changes:
        print_change(item, as_json=as_json)
    failed = [item.reason or "" for item in changes if item.failed]
    if trouble and failed and not any(trouble in reason for reason in failed):
        note(trouble)
    return int(any(item.failed for item in changes))


def by_canary(
    name: str,
    pairs: tuple[str, ...],
    canary: int | None,
    watch_for: float,
    slo: str | None,
    *,
    as_json: bool,
) -> int:
    """Change several engines, a few first. Returns the exit code: 0 when all were changed."""
    from llmtop.fleet.canary import Verdict
    from llmtop.loadgen.experiments import slo as slos
    from llmtop.operations.wiring import Wiring

    if not is_selection(name):
        raise UsageError("--canary needs several engines", "name them like 'model=llama-*'")
    if canary is None or slo is None:
        raise UsageError(
            "a change of several engines needs a canary", "add --canary 1 --slo ttft=500ms"
        )
    if not pairs:
        raise UsageError("there is nothing to change", "write it as max_num_seqs=64")
    plan = Plan(name, distinct(pairs), canary, watch_for, slos.parse(slo).limits)

    def print_step(words: str) -> None:
        with suppress(OSError):  # a closed stderr must not prevent the revert
            note(words)

    async def change() -> Result:
        wiring = Wiring()
        try:
            return await carry_out(wiring, plan, print_step)
        finally:
            await wiring.fetch.close()

    stop_as_ctrl_c_does()  # the canaries must be put back
    found = asyncio.run(change())
    if as_json:
        document(
            {
                "select": name,
                "verdict": found.judgement.verdict.value,
                "reason": found.judgement.words,
                "canaries": list(found.canaries),
                "changed": list(found.changed),
                "reverted": list(found.reverted),
            }
        )
    return int(found.judgement.verdict is not Verdict.NOT_WORSE)
