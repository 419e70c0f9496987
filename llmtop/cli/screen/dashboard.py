"""Builds the parts of the dashboard and runs it, for all commands that open it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.interrupts import INTERRUPTED
from llmtop.cli.screen.screen_options import ScreenFlags
from llmtop.cli.screen.tour_options import TourFlags, ask, put_back
from llmtop.engines.core.records import EngineRecord, State

if TYPE_CHECKING:
    from llmtop.alerts.rules import Alert
    from llmtop.config.tables import AlertTable
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.loadgen.workload.plan import Plan, Prompts
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.dashboard.runtime import DashboardRuntime
    from llmtop.tui.store.store import Store

# Threshold of the youngest generation of Python's garbage collector. A reply with latencies
# creates thousands of short-lived objects. With Python's default of 700, the collector takes a
# tenth of the screen's CPU time under load.
GC_THRESHOLD = 10_000


def require_terminal(instead: str = "`llmtop once NAME --json`, `llmtop ps`") -> None:
    """Raise UsageError when the terminal cannot show a dashboard.

    instead: commands that work without a terminal, for the hint.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", f"without one: {instead}")
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UsageError(
            f"this terminal (TERM={term!r}) cannot draw the dashboard",
            "use `llmtop once NAME --json` and `llmtop ps --json`, or set TERM",
        )


def draws_unicode() -> bool:
    """Whether the locale can encode the characters of the screen; ISO 8859 cannot."""
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
    fill: Callable[[Store], Awaitable[None]] | None = None,
    record: Path | None = None,
    alerts: bool = True,
    elsewhere: str = "",
) -> None:
    """Run the dashboard until the user quits.

    endpoints: the engines (default: all running ones that any llmtop started, also those started
    later). missing: URLs that do not answer yet, and why. select: name of the selected engine.
    plan: a load that starts as soon as the selected engine is ready. launched: the engine that this
    command started; LlmtopError when it failed. tour: play it on the selected engine. fill: adds
    past samples to the store. record: the file to record into. alerts: check those of the file.
    elsewhere: host of an engine that is read through a Prometheus; the dashboard is then read-only.
    """
    from llmtop.config.keymap import DEFAULT, Keymap
    from llmtop.themes.theme import load_themes
    from llmtop.tui.app import LlmtopApp
    from llmtop.tui.dashboard.runtime import DashboardRuntime
    from llmtop.tui.terminal.shutdown import Shutdown

    flags = screen or ScreenFlags()
    follow_new = endpoints is None
    if endpoints is None:
        records = [record for record in wiring.supervisor.records() if record.ended_at is None]
        endpoints = [wiring.owned(record.name) for record in records]
    themes, problems = load_themes(wiring.themes_folder)
    runtime = DashboardRuntime(
        wiring,
        endpoints,
        select=select,
        prompts=prompts,
        interval=flags.interval,
        follow_new=follow_new,
        missing=missing or {},
    )
    perform = runtime.perform(plan)
    keys = Keymap(flags.config.table.keys) if flags.config is not None else DEFAULT
    runtime.controller.keys = runtime.experiments.keys = keys
    if record is not None:
        runtime.recordings.begin(record)
    show_tour = runtime.tour(tour.speed) if tour is not None else None

    async def background() -> None:
        # Without a handler, a signal leaves the terminal in raw mode on its alternate screen.
        shutdown.listen(app.exit)
        # Modules, widgets and the stylesheet live until the end: exclude them from collections.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)
        if fill is not None:
            await fill(runtime.store)
        if show_tour is None:
            await perform()
            return
        playing = asyncio.create_task(show_tour.play())
        try:
            await perform()
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing

    app = LlmtopApp(
        runtime.store,
        runtime.controller,
        interval=flags.interval,
        themes=themes,
        problems=problems,
        theme=flags.theme,
        readonly=flags.readonly or bool(elsewhere),
        ascii=flags.ascii or not draws_unicode(),
        gpu_hour=flags.gpu_hour,
        low_bandwidth=flags.low_bandwidth,
        clock=runtime.timeline.now,
        background=background,
        keys=keys,
        mouse=flags.mouse,
        config=flags.config,
        tour=show_tour,
    )
    runtime.repaint, runtime.steps_read = app.show_now, app.steps_read
    app.state_folder = wiring.state.root
    app.elsewhere = elsewhere
    if alerts and flags.config is not None and flags.config.table.alerts:
        follow_alerts(runtime, wiring, flags.config.table.alerts, app.ring)
    shutdown = Shutdown()
    try:
        app.run(mouse=flags.mouse)
    finally:
        runtime.release()
        if show_tour is not None:
            put_back(wiring, show_tour)
    runtime.recordings.end()
    for line in [*runtime.recordings.ended, *runtime.running_engine_lines()]:
        click.echo(line)
    shutdown.finish()
    if launched is not None:
        status = wiring.supervisor.status(launched)
        if status.state in (State.FAILED, State.LOST):
            from llmtop.engines.supervision.launch import LaunchFailed

            raise LaunchFailed(
                f"{launched.name!r} did not keep running: {status.phase or status.state.value}",
                status.record.advice or f"read its log: llmtop logs {launched.name}",
                status.record.excerpt,
            )
    if app.interrupted or shutdown.exit_code:
        raise click.exceptions.Exit(shutdown.exit_code or INTERRUPTED)
    if app.return_code:
        why = f": {app.fault}" if app.fault else ""
        raise LlmtopError(f"the dashboard failed{why}", "the engines keep running; see `llmtop ps`")


def follow_alerts(
    runtime: DashboardRuntime,
    wiring: Wiring,
    tables: Mapping[str, AlertTable],
    ring: Callable[[str], None],
) -> None:
    """Check the alerts of the file while the dashboard runs.

    ring: receives the control characters that ring the terminal's bell, "" for no bell.
    """
    from llmtop.alerts.delivery import Delivery, bell
    from llmtop.alerts.ledger import Ledger
    from llmtop.alerts.words import sentence
    from llmtop.operations.monitoring.alerting import post_by, usable_rules
    from llmtop.tui.monitoring.alert_source import AlertSource, event
    from llmtop.tui.monitoring.watches import Watches
    from llmtop.tui.store.store import Event

    store, now = runtime.store, runtime.timeline.now

    def warn(words: str) -> None:
        store.events.append(Event(now(), "warning", words))

    def show_alert(alert: Alert) -> None:
        store.events.append(event(alert, now()))
        ring(bell(alert.rule, sentence(alert)))

    rules, errors = usable_rules(tables, wiring.environ)
    for words in errors:
        warn(f"{words}: its webhook is not used")
    watches = Watches(store, runtime.insights, wiring)
    delivery, ledger = Delivery(post_by(wiring), warn), Ledger(wiring.state.root)
    runtime.sampling.sources.append(AlertSource(watches, rules, delivery, ledger, show_alert))


def show_tour(name: str, tour: TourFlags, screen: ScreenFlags, *, yes: bool) -> None:
    """Show the tour on a running engine, after consent. name: name or URL. yes: do not ask."""
    from llmtop.operations.wiring import Wiring

    if screen.readonly:
        raise UsageError(
            "the tour changes options, which --readonly forbids", "omit --tour or --readonly"
        )
    wiring = Wiring()

    async def find() -> Endpoint:
        try:
            return await wiring.endpoint(name)
        finally:
            await wiring.fetch.close()

    endpoint = asyncio.run(find())
    ask(endpoint.name, endpoint.url, simulated=endpoint.adapter.simulated, yes=yes)
    show(Wiring(), endpoints=[endpoint], select=endpoint.name, screen=screen, tour=tour)
