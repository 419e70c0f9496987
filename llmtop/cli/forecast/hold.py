"""``llmtop hold NAME --slo …``: keep latencies within limits under any load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.engines.running import require_answering
from llmtop.cli.forecast.forecast import span
from llmtop.cli.forecast.slo_option import limits_of, slo_option
from llmtop.cli.load.load_target import report_option
from llmtop.cli.screen.background_recording import (
    add_outcome,
    record_load_flag,
    recorded,
    recording_path,
)

if TYPE_CHECKING:
    from llmtop.operations.slo.hold_engine import HoldPlan, Prepared
    from llmtop.operations.slo.holder import HoldReport
    from llmtop.operations.slo.holders import Action, HolderState


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@slo_option(required=False)
@click.option(
    "--for",
    "seconds",
    type=Span(1.0, 7 * 86_400.0),
    help="End after this time (default: only by Ctrl+C or --stop).",
)
@click.option("--batch", metavar="RANGE", help="Bounds of the batch limit, such as 32..256.")
@click.option("--queue", metavar="RANGE", help="Bounds of the queue limit, such as 4..64.")
@click.option("--budget", metavar="RANGE", help="Bounds of the token budget, such as 1024..8192.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--detach", is_flag=True, help="Hold in the background, also after this terminal has closed."
)
@click.option("--stop", "end", is_flag=True, help="End the process that holds NAME.")
@click.option("--background", is_flag=True, hidden=True)
@report_option
@record_load_flag
@config_flag
@json_flag
def command(
    name: str,
    slo: str | None,
    seconds: float | None,
    batch: str | None,
    queue: str | None,
    budget: str | None,
    yes: bool,
    detach: bool,
    end: bool,
    background: bool,
    report_file: str | None,
    config_file: Any,
    as_json: bool,
) -> int:
    """Keep the latencies of NAME within limits, whatever its load.

    While the load is low, llmtop changes nothing. Under overload it lowers the batch limit and the
    token budget to keep TPOT, and it limits the queue to keep TTFT. Requests that could not be
    served in time are refused at once, with status 503. When the load is low again, your own
    values return. They also return when the command ends.

        llmtop hold vllm --slo ttft=1s,tpot=50ms --for 10m
    """
    from llmtop.cli.forecast.slo_documents import engine_of, hold_document, setup_of
    from llmtop.cli.load.saving import check, first_failure, write_run
    from llmtop.operations.slo.hold_engine import HoldPlan
    from llmtop.operations.wiring import Wiring
    from llmtop.slo_control.limits import Goal

    wiring = Wiring()
    if end and (detach or slo is not None):
        raise UsageError(
            "--stop ends a hold; it takes no other option", f"llmtop hold {name} --stop"
        )
    if end:
        return _end(wiring, name)
    config = read(config_file)
    limits = limits_of(slo, config)
    if limits is None or slo is None:
        raise UsageError("no latency limits were given", "add --slo ttft=1s,tpot=50ms")
    if limits.ttft is None and limits.tpot is None:
        raise UsageError("e2e alone cannot be held", "add a limit of ttft or tpot")
    plan = HoldPlan(
        name,
        slo,
        Goal(limits.ttft, limits.tpot),
        seconds,
        span(batch, "--batch", "32..256"),
        span(queue, "--queue", "4..64"),
        span(budget, "--budget", "1024..8192"),
        detached=background,
    )
    check((), report_file=report_file)
    if not wiring.is_url(name):
        require_answering(wiring, wiring.owned(name))
    if detach:
        from llmtop.cli.forecast.detached import detached

        if not yes:
            _confirmed(plan)
        # An absolute path: the process starts in another folder.
        file = os.path.abspath(config.file) if config.file else None
        return detached(wiring, plan, file, recording_path(), report_file, as_json=as_json)
    endpoint = engine_of(wiring, name)
    report = asyncio.run(_hold(wiring, plan, yes=yes or background, quiet=as_json))
    if report is None:
        return 1
    found = hold_document(plan, report, endpoint)
    found["setup"] = setup_of(wiring, endpoint)
    add_outcome("hold", name, found)
    unwritten = first_failure([partial(write_run, report_file, found)] if report_file else [])
    if as_json:
        document(found)
    else:
        for line in lines(plan, report):
            click.echo(line)
    if report.ended:
        raise LlmtopError(f"the hold ended: {report.ended}")
    if unwritten is not None:
        raise unwritten
    return int(not report.restored)


async def _hold(wiring: Any, plan: HoldPlan, *, yes: bool, quiet: bool) -> HoldReport | None:
    from llmtop.operations.slo.hold_engine import hold

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, RuntimeError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop.set)
    line = StatusLine(quiet=quiet)

    def agree(ready: Prepared) -> bool:
        if ready.note:
            note(ready.note)
        confirmed = yes or _confirmed(plan)
        if confirmed:
            recorded(wiring, plan.name, None)
        return confirmed

    def act(action: Action) -> None:
        line.keep(action_words(action))

    def state(found: HolderState) -> None:
        line.show(state_words(found))

    report = await hold(wiring, plan, stop, agree=agree, on_action=act, on_state=state)
    line.clear()
    return report


def _confirmed(plan: HoldPlan) -> bool:
    """Ask for consent. Raises click's Abort for "no", UsageError without a terminal."""
    words = (
        f"requests to {plan.name} that cannot be served within {plan.slo} will be refused with"
        " status 503 while the load is too high"
    )
    if not sys.stdin.isatty():
        raise UsageError(words, "add --yes to agree")
    return click.confirm(f"{words}. Continue?", abort=True, err=True)


def _end(wiring: Any, name: str) -> int:
    """End the process that holds an engine. It restores the operator's values."""
    from llmtop.operations.slo.detached_holder import end

    note(f"{name} is no longer held" if end(wiring, name) else f"no process holds {name}")
    return 0


def action_words(action: Action) -> str:
    """Format one action as a line, with its local time."""
    at = time.strftime("%H:%M:%S", time.localtime(action.time))
    if not action.option:
        return f"{at}  {action.why}"
    return f"{at}  {action.option} {action.before:,} -> {action.after:,}  {action.why}"


def state_words(found: HolderState) -> str:
    """Format the state of a hold as a line."""
    limits = ", ".join(f"{name} {value:,}" for name, value in found.limits.items())
    state = found.words or ("limited" if found.engaged else "below the knee")
    return f"holding {found.slo}: {state}; {limits}"


def lines(plan: HoldPlan, report: HoldReport) -> list[str]:
    """The result of a hold as lines of text."""
    from llmtop.wording.format import duration, percent, rate

    outcomes = report.outcomes
    changes = sum(1 for one in report.actions if one.option)
    return [
        f"{plan.name} held for {duration(report.seconds)}, {plan.slo}",
        f"  accepted {outcomes.accepted:,}  refused {report.refused:,}"
        f"  late at most {outcomes.late:,} ({percent(outcomes.late_share)})",
        f"  in time {rate(report.goodput_per_s)} requests/s  {changes:,} changes",
        "  your own values are in force again"
        if report.restored
        else "  not restored: " + ", ".join(f"{n} is {v}" for n, v in report.not_restored.items()),
    ]
