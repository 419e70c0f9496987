"""``--record FILE`` of the commands that open the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llmtop import UsageError

SUFFIX = ".llmtop"


def record_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--record`` to a command, which receives it as ``record_file``."""
    return click.option(
        "--record",
        "record_file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Record the whole run into FILE (.llmtop), for `llmtop replay`.",
    )(command)


def path_of(text: str | None, flag: str = "--record") -> Path | None:
    """The file to record into; None without one. UsageError if it exists or has another suffix."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix != SUFFIX:
        raise UsageError(f"{text} does not end in {SUFFIX}", f"for example {flag} run{SUFFIX}")
    if path.exists():
        raise UsageError(f"{text} exists already", "choose another file name")
    return path
