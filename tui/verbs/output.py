"""How verbs print: one JSON document on stdout, or a table; messages always on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmtop.loadgen.results import LatencySummary

json_flag = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
)


def document(value: Any) -> None:
    """Print one JSON document. NaN and infinity never appear in it; they become null."""
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=True, allow_nan=False))


def finite(value: Any) -> Any:
    """A copy without NaN and infinity, which JSON does not have; they become null."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def latency(summary: LatencySummary) -> dict[str, Any]:
    """A latency as JSON, in seconds."""
    return {"p50": summary.p50, "p95": summary.p95, "p99": summary.p99, "n": summary.n}


def note(text: str) -> None:
    """Say something about the work to the person, on stderr."""
    from llmtop.engines.logs import clean

    click.echo(clean(text), err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, left aligned, two spaces apart. Text is cleaned.

    Nothing wraps: on a terminal what does not fit is cut.
    """
    from llmtop.engines.logs import clean

    cells = [list(heads), *[[clean(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    wide = shutil.get_terminal_size((0, 0)).columns if sys.stdout.isatty() else 0
    for row in cells:
        pairs = zip(row, widths, strict=True)
        line = "  ".join(cell.ljust(width) for cell, width in pairs).rstrip()
        click.echo(f"{line[: wide - 1]}…" if 0 < wide < len(line) else line)
