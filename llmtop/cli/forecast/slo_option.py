"""``--slo`` of ``forecast``, ``hold`` and ``tune``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.forecast.figures import Limits


def slo_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds ``--slo`` to a command."""
    return click.option(
        "--slo",
        required=required,
        help='Latency limits per request: "ttft=500ms,tpot=50ms", or @NAME.',
    )


def limits_of(text: str | None, config: Config) -> Limits | None:
    """Parse the limits, in seconds; None without a text. Raises UsageError for invalid limits."""
    from llmtop.forecast.figures import Limits
    from llmtop.loadgen.experiments import slo as slos

    if text is None:
        return None
    found = slos.of(config.slo(text)) if text.startswith("@") else slos.parse(text)
    return Limits(found.ttft, found.tpot, found.e2e)
