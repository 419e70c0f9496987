"""``llmtop watch``: report the alerts of llmtop.toml, in a terminal or as a systemd service."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llmtop import UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import note
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.trust_option import cacert_flag

if TYPE_CHECKING:
    from llmtop.alerts.rules import Alert, Rule


@click.command()
@click.argument("names", metavar="[NAME|URL...]", nargs=-1, shell_complete=engine_names)
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=Span(0.5, 60),
    help="Time between two samples of the engines.",
)
@cacert_flag
@config_flag
def command(names: tuple[str, ...], interval: float, config_file: str | None) -> None:
    """Report alerts without a screen, as the tables [alerts.NAME] of llmtop.toml define them.

    Without names it watches all engines that llmtop starts. Each alert is reported once when it
    begins and once when it ends: as a line, by the terminal's bell, by a program, by a webhook.
    docs/reference/alerts.md lists the conditions, and has a unit file for systemd.
    """
    from llmtop.operations.monitoring.alerting import rules_of

    rules = rules_of(read(config_file, need=True).table.alerts, os.environ)
    if not rules:
        raise UsageError("llmtop.toml has no [alerts.NAME]", "see docs/reference/alerts.md")
    asyncio.run(watch(rules, names, interval))


async def watch(rules: Sequence[Rule], names: Sequence[str], interval: float) -> None:
    """Check the rules at each interval (seconds) until SIGINT or SIGTERM."""
    from llmtop.alerts.delivery import Delivery
    from llmtop.alerts.ledger import Ledger
    from llmtop.alerts.notify import Notifier
    from llmtop.cli.fleet.collected import collecting
    from llmtop.operations.monitoring.alerting import post_by
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.monitoring.alert_source import AlertSource

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    wiring = Wiring()
    delivery = Delivery(post_by(wiring), note)
    notifier = Notifier(os.environ)
    try:
        async with collecting(wiring, names, interval) as collected:
            ledger = Ledger(wiring.state.root)
            alerts = AlertSource(collected.watches, rules, delivery, ledger, print_alert)
            note(f"watching for {counted(len(rules), 'alert')}; Ctrl+C ends it")
            notifier.ready()
            while not ended.is_set():
                await alerts.sample()
                engines, active = counted(alerts.engines, "engine"), counted(alerts.active, "alert")
                notifier.alive(f"{engines}, {active}")
                try:
                    await asyncio.wait_for(ended.wait(), interval)
                except TimeoutError:
                    continue
    finally:
        notifier.stopping()
        await delivery.close()
        notifier.close()


def counted(number: int, word: str) -> str:
    """Format a number with its word: ``1 alert``, ``2 alerts``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def print_alert(alert: Alert) -> None:
    """Print an alert as one line on stdout; on a terminal, ring the bell."""
    from llmtop.alerts.delivery import bell
    from llmtop.alerts.words import sentence
    from llmtop.wording.format import clock

    words = sentence(alert)
    click.echo(f"{clock(alert.time)}  {alert.rule.name}  {words}")
    if sys.stdout.isatty() and (ring := bell(alert.rule, words)):
        click.echo(ring, nl=False)
