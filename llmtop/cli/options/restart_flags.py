"""The flags of a restart, shared by ``restart`` and ``set --restart``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
from msgspec import Struct

from llmtop.cli.common.param_types import SECONDS


class HowToRestart(Struct, frozen=True):
    """The values of these flags. drain, ready_timeout: seconds. without: flags to remove."""

    rolling: bool = False
    gpus: str | None = None
    drain: float = 60.0
    ready_timeout: float = 1800.0
    yes: bool = False
    without: tuple[str, ...] = ()


def restart_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of a restart to a command, which receives them as ``how``."""

    @click.option(
        "--rolling",
        is_flag=True,
        help="Start the new process first, on another port, then stop the old one.",
    )
    @click.option("--gpus", metavar="0,1", help="GPUs of the new process (default: the same).")
    @click.option(
        "--drain",
        default=60.0,
        show_default=True,
        type=SECONDS,
        help="With --rolling: time for the old process to finish its requests.",
    )
    @click.option(
        "--ready-timeout",
        default=1800.0,
        show_default=True,
        type=SECONDS,
        help="Time to wait for readiness.",
    )
    @click.option(
        "--without",
        metavar="FLAG",
        multiple=True,
        help="Remove a flag that the engine was started with, and its values. May be repeated.",
    )
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        rolling: bool,
        gpus: str | None,
        drain: float,
        ready_timeout: float,
        without: tuple[str, ...],
        yes: bool,
        **rest: Any,
    ) -> Any:
        how = HowToRestart(rolling, gpus, drain, ready_timeout, yes, without)
        return command(*args, how=how, **rest)

    return wrapped
