"""How commands print: a JSON document or a table on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmtop.loadgen.core.results import LatencySummary

json_flag = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document on stdout, and nothing else there.",
)


def document(value: Any) -> None:
    """Print one JSON document. NaN and infinity become null."""
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=True, allow_nan=False))


def finite(value: Any) -> Any:
    """A copy in which NaN and infinity are None, because JSON has neither."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def latency(summary: LatencySummary) -> dict[str, Any]:
    """A latency as JSON, in seconds."""
    return {
        "p50": summary.p50,
        "p95": summary.p95,
        "p99": summary.p99,
        "mean": summary.mean,
        "min": summary.minimum,
        "max": summary.maximum,
        "std": summary.std,
        "n": summary.n,
    }


def note(text: str) -> None:
    """Print a message on stderr, with control characters removed."""
    from llmtop.engines.host.safe_text import clean

    click.echo(clean(text), err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns, two spaces apart, with control characters removed.

    No line wraps: on a terminal, a line that is too long is cut.
    """
    from llmtop.engines.host.safe_text import clean

    cells = [list(heads), *[[clean(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    wide = width() if sys.stdout.isatty() else None
    for row in cells:
        pairs = zip(row, widths, strict=True)
        line = "  ".join(cell.ljust(size) for cell, size in pairs).rstrip()
        click.echo(f"{line[: wide - 1]}…" if wide is not None and wide < len(line) else line)


def width() -> int | None:
    """Columns of the terminal, or the value of COLUMNS; None for a pipe or a file."""
    wide = shutil.get_terminal_size((0, 0)).columns
    override = os.environ.get("COLUMNS", "")
    return wide if wide > 0 and (sys.stdout.isatty() or override.isdecimal()) else None
