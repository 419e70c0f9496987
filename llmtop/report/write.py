"""Writes a report to a file. The suffix of the file name selects the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmtop import LlmtopError, UsageError
from llmtop.output_file import open_output
from llmtop.printable import clean
from llmtop.report.build import build
from llmtop.report.document import Report
from llmtop.report.formats.html import page
from llmtop.report.formats.markdown import markdown, rows
from llmtop.report.runs import Run


def as_json(report: Report, made: str) -> str:
    """The report as JSON: its sentences, its tables and the points of its charts. made: when it
    was made, in words."""
    found: Any = msgspec.to_builtins(report)
    return json.dumps({"kind": "report", "made": made, **found}, indent=1, allow_nan=False) + "\n"


_FORMATS: dict[str, Callable[[Report, str], str]] = {
    ".html": page,
    ".htm": page,
    ".md": markdown,
    ".json": as_json,
    ".csv": lambda report, made: rows(report),
}


def check_name(path: str) -> None:
    """Raise UsageError for a path that cannot be written, before anything is measured."""
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"a report cannot be written as {clean(target.name, 80)}",
            "end the name in .html, .md, .json or .csv",
        )
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {clean(str(target.parent), 200)}")


def write_report(path: str, runs: Sequence[Run], now: float) -> None:
    """Write the report of these runs to ``path``. now: unix seconds. Raises LlmtopError where it
    cannot be written."""
    check_name(path)
    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    written = _FORMATS[Path(path).suffix.lower()](build(runs, now), made)
    try:
        with open_output(Path(path)) as file:
            file.write(written)
    except OSError as error:
        raise LlmtopError(
            f"{clean(path, 200)} cannot be written: {error.strerror}", "choose another file"
        ) from None
