"""Completion of an engine's name, from the records in the state directory."""

from __future__ import annotations

import click

from llmtop import LlmtopError


def engine_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of recorded engines that start with what was typed. No engine is asked."""
    from llmtop.operations.wiring import Wiring

    try:
        records, _ = Wiring().state.scan()
    except (LlmtopError, OSError):
        return []  # an error would appear in the middle of the line that is typed
    return [record.name for record in records if record.name.startswith(incomplete)]
