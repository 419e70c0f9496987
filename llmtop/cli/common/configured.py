"""The flag of every verb that reads ``llmtop.toml``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmtop.config.file import Config


def config_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config FILE``; the verb gets it as ``config_file``."""
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Configuration file (default: ./llmtop.toml, else ~/.config/llmtop/llmtop.toml).",
    )(command)


def read(config_file: str | None, *, need: bool = False) -> Config:
    """The file that is meant; the defaults where there is none, unless there is ``need`` of one."""
    from llmtop.config.file import chosen

    if config_file is None:  # `llmtop --config FILE up` is as good as `llmtop up --config FILE`
        config_file = click.get_current_context().find_root().params.get("config_file")
    return chosen(config_file, need=need)
