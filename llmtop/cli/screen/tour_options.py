"""Shared by the commands that show a tour: its flags, the consent, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from llmtop.cli.common.param_types import Real

if TYPE_CHECKING:
    from llmtop.engines.core.options import Change
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.dashboard.tour import Tour


class TourFlags(Struct, frozen=True):
    """The settings of a tour. speed: seconds of its script per second of real time."""

    speed: float = 1.0


def speed_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--tour-speed``."""
    return click.option(
        "--tour-speed",
        default=1.0,
        show_default=True,
        type=Real(0.1, 100),
        metavar="FACTOR",
        help="Speed of the tour.",
    )(command)


def ask(name: str, url: str, *, simulated: bool, yes: bool) -> None:
    """Ask for consent to load an engine that may have users. Raises click's Abort for "no".

    A simulated engine, or yes: do not ask.
    """
    if simulated or yes:
        return
    click.confirm(
        f"The tour overloads {name} at {url} for five minutes and changes its options. "
        "Its users will notice. Start it?",
        abort=True,
        err=True,
    )


def put_back(wiring: Wiring, tour: Tour) -> None:
    """Restore the options that the tour has changed and not yet restored. Prints each result."""
    original = dict(tour.to_restore)
    if not original:
        return

    async def change() -> tuple[Change, ...]:
        from llmtop.engines.state.temporary_changes import Purpose
        from llmtop.operations.wiring import Wiring

        fresh = Wiring(wiring.environ)  # sockets belong to one event loop; the screen's has ended
        session = fresh.session(await fresh.endpoint(tour.engine))
        try:
            return await session.change(original, purpose=Purpose("the tour", original))
        finally:
            await session.close()
            await fresh.fetch.close()

    from llmtop.printable import clean
    from llmtop.wording.format import option

    try:
        for item in asyncio.run(change()):
            word = f"{item.outcome.value}" + (f", {item.reason}" if item.reason else "")
            click.echo(clean(f"{item.option} restored to {option(item.after)}: {word}"))
    except Exception as error:
        values = " ".join(f"{name}={value}" for name, value in original.items())
        click.echo(
            clean(f"llmtop: {error}; restore with: llmtop set {tour.engine} {values}"),
            err=True,
        )
