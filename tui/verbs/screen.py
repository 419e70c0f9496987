"""The flags of every verb that opens the dashboard."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class ScreenFlags:
    """How the operator wants the dashboard. interval: seconds between samples."""

    interval: float = 1.0
    theme: str | None = None
    ascii: bool = False
    readonly: bool = False


def screen_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the dashboard's flags to a verb, which gets them as one ``screen``."""

    @click.option(
        "--interval",
        default=1.0,
        show_default=True,
        type=click.FloatRange(0.2, 60),
        metavar="SECONDS",
        help="Between two samples.",
    )
    @click.option("--theme", metavar="NAME", help="The colours; t goes through them.")
    @click.option("--ascii", is_flag=True, help="Draw with ASCII characters alone.")
    @click.option("--readonly", is_flag=True, help="Without every key that changes something.")
    @functools.wraps(command)
    def wrapped(
        *args: Any, interval: float, theme: str | None, ascii: bool, readonly: bool, **rest: Any
    ) -> Any:
        return command(*args, screen=ScreenFlags(interval, theme, ascii, readonly), **rest)

    return wrapped
