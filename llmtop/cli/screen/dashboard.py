"""The dashboard, from whichever verb it is opened: builds the real parts and runs the app."""

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

# Objects more before the collector looks: an answer about latencies has thousands for a moment.
# With the usual 700 the collector takes a tenth of what the screen costs under load.
GARBAGE = 10_000


def require_terminal(instead: str = "`llmtop once NAME --json`, `llmtop ps`") -> None:
    """A UsageError, with the commands to use instead, where no dashboard can be drawn."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", f"without one: {instead}")
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UsageError(
            f"this terminal (TERM={term!r}) cannot draw the dashboard",
            "use `llmtop once NAME --json` and `llmtop ps --json`, or set TERM",
        )


def draws_unicode() -> bool:
    """Whether the locale has the characters of the screen; a console of ISO 8859 has not."""
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
    before: Callable[[Store], Awaitable[None]] | None = None,
    record: Path | None = None,
    alerts: bool = True,
    elsewhere: str = "",
) -> None:
    """Run the dashboard until the person leaves it.

    endpoints: which engines (default: all that llmtop started and that live, and those that
    another llmtop starts meanwhile). missing: URLs that do not answer yet, and why. plan: a load
    for the selected engine as soon as it is ready. launched: the engine that was just started for
    this; LlmtopError when it did not come up.
    tour: play it on the selected engine. before: fills the store with what was before.
    record: a file that all of it is recorded into. alerts: follow those of the file.
    elsewhere: the host of an engine that is seen through a Prometheus; nothing is changed then.
    """
    from llmtop.config.keymap import DEFAULT, Keymap
    from llmtop.themes.theme import load_themes
    from llmtop.tui.app import LlmtopApp
    from llmtop.tui.dashboard.runtime import DashboardRuntime
    from llmtop.tui.terminal.shutdown import Shutdown

    look = screen or ScreenFlags()
    follow_new = endpoints is None
    if endpoints is None:
        records = [record for record in wiring.supervisor.records() if record.ended_at is None]
        endpoints = [wiring.owned(record.name) for record in records]
    themes, problems = load_themes(wiring.themes_folder)
    stage = DashboardRuntime(
        wiring,
        endpoints,
        select=select,
        prompts=prompts,
        interval=look.interval,
        follow_new=follow_new,
        missing=missing or {},
    )
    perform = stage.perform(plan)
    keys = Keymap(look.config.table.keys) if look.config is not None else DEFAULT
    stage.controller.keys = stage.experiments.keys = keys
    if record is not None:
        stage.recordings.begin(record)
    show_tour = stage.tour(tour.speed) if tour is not None else None

    async def background() -> None:
        # Else a signal would leave the terminal raw and on its alternate screen.
        shutdown.listen(app.exit)
        # Modules, widgets and the stylesheet stay to the end: the collector need not look at them.
        gc.freeze()
        gc.set_threshold(GARBAGE, 20, 20)
        if before is not None:
            await before(stage.store)
        if show_tour is None:
            await perform()
            return
        show = asyncio.create_task(show_tour.play())
        try:
            await perform()
        finally:
            show.cancel()
            with suppress(asyncio.CancelledError):
                await show

    app = LlmtopApp(
        stage.store,
        stage.controller,
        interval=look.interval,
        themes=themes,
        problems=problems,
        theme=look.theme,
        readonly=look.readonly or bool(elsewhere),
        ascii=look.ascii or not draws_unicode(),
        gpu_hour=look.gpu_hour,
        low_bandwidth=look.low_bandwidth,
        clock=stage.timeline.now,
        background=background,
        keys=keys,
        mouse=look.mouse,
        config=look.config,
        tour=show_tour,
    )
    stage.repaint, stage.steps_read = app.show_now, app.steps_read
    app.state_folder = wiring.state.root
    app.elsewhere = elsewhere
    if alerts and look.config is not None and look.config.table.alerts:
        follow_alerts(stage, wiring, look.config.table.alerts, app.ring)
    shutdown = Shutdown()
    try:
        app.run(mouse=look.mouse)
    finally:
        stage.release()
        if show_tour is not None:
            put_back(wiring, show_tour)
    stage.recordings.end()
    for line in [*stage.recordings.ended, *stage.running_engine_lines()]:
        click.echo(line)
    shutdown.finish()
    if launched is not None:
        status = wiring.supervisor.status(launched)
        if status.state in (State.FAILED, State.LOST):
            from llmtop.engines.supervision.launch import LaunchFailed

            raise LaunchFailed(
                f"{launched.name!r} did not stay up: {status.phase or status.state.value}",
                status.record.advice or f"read its log: llmtop logs {launched.name}",
                status.record.excerpt,
            )
    if app.interrupted or shutdown.exit_code:
        raise click.exceptions.Exit(shutdown.exit_code or INTERRUPTED)
    if app.return_code:
        why = f": {app.fault}" if app.fault else ""
        raise LlmtopError(
            f"the dashboard ended with a fault{why}", "engines keep running; see `llmtop ps`"
        )


def follow_alerts(
    stage: DashboardRuntime,
    wiring: Wiring,
    tables: Mapping[str, AlertTable],
    ring: Callable[[str], None],
) -> None:
    """Follow the alerts of the file beside the screen. ring: what makes the terminal ring."""
    from llmtop.alerts.delivery import Delivery, bell
    from llmtop.alerts.ledger import Ledger
    from llmtop.alerts.words import sentence
    from llmtop.operations.monitoring.alerting import post_by, usable_rules
    from llmtop.tui.monitoring.alert_source import AlertSource, event
    from llmtop.tui.monitoring.watches import Watches
    from llmtop.tui.store.store import Event

    store, now = stage.store, stage.timeline.now

    def warn(words: str) -> None:
        store.events.append(Event(now(), "warning", words))

    def show_alert(alert: Alert) -> None:
        store.events.append(event(alert, now()))
        ring(bell(alert.rule, sentence(alert)))

    rules, troubles = usable_rules(tables, wiring.environ)
    for words in troubles:
        warn(f"{words}: its webhook is left out")
    watches = Watches(store, stage.insights, wiring)
    delivery, ledger = Delivery(post_by(wiring), warn), Ledger(wiring.state.root)
    stage.sampling.sources.append(AlertSource(watches, rules, delivery, ledger, show_alert))


def show_tour(name: str, tour: TourFlags, screen: ScreenFlags, *, yes: bool) -> None:
    """The tour on an engine that runs, by name or URL, once that was agreed to."""
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
