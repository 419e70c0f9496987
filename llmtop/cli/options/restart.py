"""``llmtop restart NAME [OPTION=VALUE]``: show the cost of a restart, then restart an engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.options.changes import entry, print_change, split
from llmtop.cli.options.restart_flags import HowToRestart, restart_flags
from llmtop.cli.start.run import FLAGS, PassingFlags, gpu_list
from llmtop.engines.core.options import Change, Option, OptionValue, Outcome

if TYPE_CHECKING:
    from llmtop.engines.core.records import EngineRecord, EngineStatus
    from llmtop.engines.supervision.restart import HandOver, Restarted
    from llmtop.operations.wiring import Wiring


@click.command(cls=PassingFlags)
@click.argument("name", shell_complete=engine_names)
@click.argument("pairs", metavar="[OPTION=VALUE]...", nargs=-1)
@restart_flags
@json_flag
@click.pass_context
def command(
    ctx: click.Context, name: str, pairs: tuple[str, ...], how: HowToRestart, as_json: bool
) -> int:
    """Restart NAME, with other options if some are given.

    Everything after -- is passed to the engine unchanged and replaces the same flags:

        llmtop restart vllm max_model_len=4096 -- --enforce-eager

    --without removes a flag: llmtop restart vllm --without --enforce-eager

    llmtop shows the expected cost and asks first. If the engine does not start with the new
    options, llmtop starts it again with the old ones. A running engine keeps its environment
    variables; a stopped one gets those of this command. With --rolling the engine keeps its name
    and gets a new port.
    """
    return perform(name, pairs, ctx.meta.get(FLAGS, ()), how, as_json=as_json, always=True)


def perform(
    name: str,
    pairs: tuple[str, ...],
    flags: tuple[str, ...],
    how: HowToRestart,
    *,
    as_json: bool,
    always: bool,
    evict: bool = False,
) -> int:
    """Change what can be changed live, restart for the rest, and print the result.

    always: restart even if no change needs it. Returns the exit code.
    """
    from llmtop.engines.supervision.restart import Wanted
    from llmtop.engines.tuning.change_plan import propose
    from llmtop.engines.tuning.resolution import refused_change
    from llmtop.operations.wiring import Wiring

    wiring = Wiring()
    if wiring.is_url(name):
        raise UsageError(
            "only an engine that llmtop started can be restarted", "name one: llmtop ps"
        )
    supervisor = wiring.supervisor
    record = supervisor.find(name)
    options, in_flight = asyncio.run(facts(Wiring(), record))
    wanted, free = parse_pairs(options, pairs)
    proposal = propose(options, wanted, wiring.who)
    before = {option.name: option for option in options}
    if proposal.refused:
        bad = {change.option: change for change in proposal.refused}
        why = f"not changed, because {', '.join(bad)} was refused"
        changes = [
            bad.get(key) or refused_change(before[key], value, why) for key, value in wanted.items()
        ]
        return finish(name, changes, None, as_json=as_json)
    flags = (*free, *flags)
    if not (proposal.restart or flags or how.without or always):
        wiring.temporary_changes.settle(record, proposal.settled)
        applied = asyncio.run(change_live(Wiring(), record, proposal.live, evict=evict))
        by_name = {change.option: change for change in applied}
        changes = [by_name.get(key) or unchanged(before[key]) for key in wanted]
        return finish(name, changes, None, as_json=as_json)
    values = {key: value for key, value in wanted.items() if always or key in proposal.restart}
    expected_s = supervisor.expected_startup_s(record)
    ask(name, expected_s, in_flight, how, as_json=as_json)
    if supervisor.restart_journal.cut_short(name) is not None and not supervisor.ready(record):
        note(
            f"{name}: the last restart was interrupted; continuing from the last good configuration"
        )
    try:
        with past_the_terminal():
            done = wiring.restart(
                record,
                Wanted(values, flags, gpu_list(how.gpus), how.without),
                hand_over(wiring, record, how.drain) if how.rolling else None,
                ready_timeout_s=how.ready_timeout,
                on_phase=print_phase,
            )
    except KeyboardInterrupt:
        note(f"{name} stays in its current state; `llmtop ps` shows it")
        raise
    record_version(wiring, done)
    changes = [settled(before[key], value, done) for key, value in wanted.items()]
    cost = {"expected_s": expected_s, "in_flight": in_flight, "rolling": how.rolling}
    return finish(name, changes, done, cost, as_json=as_json)


@contextlib.contextmanager
def past_the_terminal() -> Iterator[None]:
    """Survive SIGHUP: a lost connection stops the output but not the restart."""

    def silence(*_: object) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(nowhere, fd)
        os.close(nowhere)

    # Not SIG_IGN: the engine would inherit it.
    before = signal.signal(signal.SIGHUP, silence)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def facts(wiring: Wiring, record: EngineRecord) -> tuple[tuple[Option, ...], int | None]:
    """The current options, and the number of requests in the engine (None: unknown)."""
    session = wiring.session(wiring.of(record))
    try:
        options, _ = await session.options()
        try:
            sample = await session.sample()
        except LlmtopError:
            return options, None
        return options, None if sample.running is None else sample.running + (sample.waiting or 0)
    finally:
        await session.close()
        await wiring.fetch.close()


async def change_live(
    wiring: Wiring, record: EngineRecord, wanted: Mapping[str, OptionValue], *, evict: bool
) -> tuple[Change, ...]:
    """Change options of the running engine."""
    if not wanted:
        return ()
    session = wiring.session(wiring.of(record))
    try:
        return await session.change(wanted, evict=evict)
    finally:
        await session.close()
        await wiring.fetch.close()


def parse_pairs(
    options: tuple[Option, ...], pairs: tuple[str, ...]
) -> tuple[dict[str, OptionValue], tuple[str, ...]]:
    """Split arguments into changes of known options and other flags of the engine.

    Only an unknown name that starts with ``--`` is such a flag. Raises UsageError.
    """
    from llmtop.engines.tuning import resolution

    names = {option.name for option in options}
    wanted: dict[str, OptionValue] = {}
    free: list[str] = []
    for pair in pairs:
        plain = pair.partition("=")[0].lstrip("-").replace("-", "_")
        if pair.startswith("--") and plain not in names:
            free.append(pair)
            continue
        key, text = split(pair)
        wanted[key] = resolution.parse(resolution.find(options, key), text)
    return wanted, tuple(free)


def ask(
    name: str,
    expected_s: float | None,
    in_flight: int | None,
    how: HowToRestart,
    *,
    as_json: bool,
) -> None:
    """Show the expected cost, and ask for consent unless ``--yes`` was given."""
    from llmtop.wording.sentences import cost_words

    words = f"{name}: {cost_words(expected_s, in_flight, rolling=how.rolling)}"
    if how.yes or as_json:
        note(words)
    elif not sys.stdin.isatty():
        raise UsageError(words, "add --yes to restart it without being asked")
    else:
        click.confirm(f"{words}. Restart it?", abort=True, err=True)


def print_phase(status: EngineStatus) -> None:
    """Print the phase of a start. The supervisor calls it once for each phase."""
    note(f"{status.record.name}: {status.phase or status.state.value}")


def hand_over(wiring: Wiring, record: EngineRecord, drain_s: float) -> HandOver:
    """For a rolling restart: print the new URL, then wait until the old engine is idle.

    drain_s: longest wait, in seconds.
    """
    from llmtop.operations.wiring import Wiring

    async def drained() -> bool:
        fresh = Wiring(wiring.environ)
        session = fresh.session(fresh.of(record))
        try:
            return await session.drained(drain_s)
        finally:
            await session.close()
            await fresh.fetch.close()

    def wait(fresh: EngineRecord) -> None:
        note(
            f"{record.name} answers at {fresh.url} now; {record.url} runs until it is idle, "
            f"at most {drain_s:g} s"
        )
        if not asyncio.run(drained()):
            note(f"{record.url} still has requests; they will be aborted")

    return wait


def record_version(wiring: Wiring, done: Restarted) -> None:
    """Record the version that the new process reports."""
    from llmtop.engines.metrics.detection import version_of
    from llmtop.operations.wiring import Wiring

    fresh = Wiring(wiring.environ)
    version = asyncio.run(fresh.ask(lambda fetch: version_of(done.record.url, fetch)))
    if version:
        wiring.supervisor.learn(done.record, version)


def unchanged(option: Option) -> Change:
    """The outcome of a change to the current value."""
    return Change(option.name, option.value, option.value, Outcome.APPLIED, "unchanged")


def settled(option: Option, value: OptionValue, done: Restarted) -> Change:
    """The outcome of a change by a restart: applied, or rolled back with it."""
    outcome = Outcome.REFUSED if done.rolled_back else Outcome.APPLIED
    reason = f"rolled back, because {done.failure}" if done.rolled_back else None
    return Change(option.name, option.value, value, outcome, reason)


def finish(
    name: str,
    changes: list[Change],
    done: Restarted | None,
    cost: Mapping[str, Any] | None = None,
    *,
    as_json: bool,
) -> int:
    """Print the result. Returns the exit code: 1 when a change was refused or rolled back."""
    if as_json:
        document(
            {
                "name": name,
                "changes": [entry(change) for change in changes],
                "restart": outcome(done, cost or {}) if done is not None else None,
            }
        )
    if done is None or not done.rolled_back:  # else each change would repeat the same reason
        for change in changes:
            print_change(change, as_json=as_json)
    if done is not None and done.rolled_back:
        note(f"llmtop: {name} was rolled back, because {done.failure}")
        if done.advice:
            note(f"        {done.advice}")
        for line in done.excerpt:
            note(f"        | {line}")
        return 1
    if done is not None and not as_json:
        moved = f" (was {done.url_before})" if done.url_before != done.record.url else ""
        note(
            f"{name} is ready at {done.record.url}{moved}, {done.took_s:.0f} s in total, "
            f"down for {done.down_s:.0f} s"
        )
    return int(any(change.failed for change in changes))


def outcome(done: Restarted, cost: Mapping[str, Any]) -> dict[str, Any]:
    """A restart as ``--json`` shows it. docs/reference/json.md describes the fields."""
    return {
        "outcome": "rolled back" if done.rolled_back else "restarted",
        "reason": done.failure or None,
        "advice": done.advice or None,
        "log_excerpt": list(done.excerpt),
        **cost,
        "took_s": done.took_s,
        "down_s": done.down_s,
        "url_before": done.url_before,
        "url": done.record.url,
        "port": done.record.spec.port,
        "pid": done.record.pid,
    }
