"""``--cacert FILE``: the certificates to trust, for every command that takes a URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llmtop import UsageError
from llmtop.operations.wiring import CACERT


def _keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    path = Path(value).expanduser()
    if not path.is_file():
        raise UsageError(f"--cacert: there is no file {value!r}")
    ctx.meta[CACERT] = str(path.absolute())


cacert_flag: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--cacert",
    metavar="FILE",
    expose_value=False,
    callback=_keep,
    help="CA certificates to trust over https (default: SSL_CERT_FILE, else the system's).",
)
