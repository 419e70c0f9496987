"""Completion of an engine's name, from the records in the state directory."""

from __future__ import annotations

import click

from llmtop import LlmtopError


def engine_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of recorded engines that start with ``incomplete``. Contacts no engine."""
    from llmtop.operations.wiring import Wiring

    try:
        records, _ = Wiring().state.scan()
    except (LlmtopError, OSError):
        return []  # the shell would print an error into the line that is being typed
    return [record.name for record in records if record.name.startswith(incomplete)]
