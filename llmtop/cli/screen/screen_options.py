"""The flags of every command that opens the dashboard."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from llmtop import UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.param_types import Real, Span

if TYPE_CHECKING:
    from llmtop.config.file import Config


class ScreenFlags(Struct, frozen=True):
    """The settings of the dashboard, from the flags or else from the configuration file.

    interval: seconds between samples. gpu_hour: price of one GPU hour. config: the file; None if
    it was not read.
    """

    interval: float = 1.0
    theme: str | None = None
    ascii: bool = False
    readonly: bool = False
    gpu_hour: float | None = None
    low_bandwidth: bool = False
    mouse: bool = True
    config: Config | None = None


def screen_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the dashboard's flags to a command, which receives them as ``screen``."""

    @click.option(
        "--interval",
        type=Span(0.2, 60),
        help="Time between two samples.  [default: 1.0; of fleet: 5.0]",
    )
    @click.option("--theme", metavar="NAME", help="Colour theme; key t shows the next one.")
    @click.option("--ascii/--no-ascii", default=None, help="Draw with ASCII characters only.")
    @click.option(
        "--readonly/--no-readonly", default=None, help="Disable all keys that change state."
    )
    @click.option(
        "--gpu-hour",
        type=Real(min=0),
        metavar="PRICE",
        help="Price of one GPU hour, for cost per token.",
    )
    @click.option(
        "--low-bandwidth/--no-low-bandwidth",
        default=None,
        help="Redraw less often: at most 1,000 bytes/s at 120x40.",
    )
    @click.option(
        "--mouse/--no-mouse",
        default=None,
        help="Use the mouse; without it the terminal selects text (key m).",
    )
    @config_flag
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        interval: float | None,
        theme: str | None,
        ascii: bool | None,
        readonly: bool | None,
        gpu_hour: float | None,
        low_bandwidth: bool | None,
        mouse: bool | None,
        config_file: str | None,
        **rest: Any,
    ) -> Any:
        # The subcommand opens the screen and reads the file.
        if click.get_current_context().invoked_subcommand is not None:
            return command(*args, screen=ScreenFlags(), **rest)
        if theme is not None:
            check_theme(theme)
        config = read(config_file)
        wanted = config.table.screen
        screen = ScreenFlags(
            interval=wanted.interval if interval is None else interval,
            theme=theme or wanted.theme or None,
            ascii=wanted.ascii if ascii is None else ascii,
            readonly=wanted.readonly if readonly is None else readonly,
            gpu_hour=(wanted.gpu_hour if gpu_hour is None else gpu_hour) or None,
            low_bandwidth=wanted.low_bandwidth if low_bandwidth is None else low_bandwidth,
            mouse=wanted.mouse if mouse is None else mouse,
            config=config,
        )
        return command(*args, screen=screen, **rest)

    return wrapped


def check_theme(name: str) -> None:
    """Raise UsageError for an unknown theme, or one whose file is invalid.

    This checks ``--theme`` only. A bad theme in llmtop.toml is a notice on the screen, because
    another person may have written the file.
    """
    from llmtop.operations.wiring import Wiring
    from llmtop.themes.theme import load_themes

    themes, problems = load_themes(Wiring().themes_folder)
    if name in themes:
        return
    hint = f"the themes are {', '.join(themes)}"
    for problem in problems:
        if problem.file == f"{name}.toml":
            raise UsageError(f"the theme {name!r} cannot be used: {problem.reason}", hint)
    raise UsageError(f"no theme is called {name!r}", hint)
