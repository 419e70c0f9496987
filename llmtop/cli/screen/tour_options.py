"""What the verbs that show a tour share: its flags, the question before it, and its end."""

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
    """How the tour is shown. speed: seconds of its script in one of the clock."""

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
    """Ask once before an engine that may have users is loaded; ends the verb where that is not
    wanted."""
    if simulated or yes:
        return
    click.confirm(
        f"The tour overloads {name} at {url} for five minutes and changes its options. "
        "Its users will notice. Start it?",
        abort=True,
        err=True,
    )


def put_back(wiring: Wiring, tour: Tour) -> None:
    """Options that the tour still owes after the screen is gone, however it went; said in words."""
    owed = dict(tour.to_restore)
    if not owed:
        return

    async def change() -> tuple[Change, ...]:
        from llmtop.engines.state.temporary_changes import Purpose
        from llmtop.operations.wiring import Wiring

        fresh = Wiring(wiring.environ)  # the screen's sockets belong to its event loop, which ended
        session = fresh.session(await fresh.endpoint(tour.engine))
        try:
            return await session.change(owed, purpose=Purpose("the tour", owed))
        finally:
            await session.close()
            await fresh.fetch.close()

    from llmtop.printable import clean
    from llmtop.wording.format import option

    try:
        for item in asyncio.run(change()):
            word = f"{item.outcome.value}" + (f", {item.reason}" if item.reason else "")
            click.echo(clean(f"{item.option} back to {option(item.after)}: {word}"))
    except Exception as error:
        values = " ".join(f"{name}={value}" for name, value in owed.items())
        click.echo(
            clean(f"llmtop: {error}; restore with: llmtop set {tour.engine} {values}"),
            err=True,
        )
