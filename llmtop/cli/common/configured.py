"""``--config``, for every command that reads ``llmtop.toml``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmtop.config.file import Config


def config_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config FILE`` to a command, which receives it as ``config_file``."""
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Configuration file (default: ./llmtop.toml, else ~/.config/llmtop/llmtop.toml).",
    )(command)


def read(config_file: str | None, *, need: bool = False) -> Config:
    """Read the configuration file. Without a file: the defaults, or an LlmtopError if ``need``."""
    from llmtop.config.file import chosen

    if config_file is None:  # `llmtop --config FILE up` means the same as `llmtop up --config FILE`
        config_file = click.get_current_context().find_root().params.get("config_file")
    return chosen(config_file, need=need)
