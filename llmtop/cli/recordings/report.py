"""``llmtop report FILE...``: saved results as one page that can be sent to somebody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtop import UsageError

if TYPE_CHECKING:
    from llmtop.report.runs import Run

MOST_FILES = 16  # more curves than that on one chart tell nothing


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False)
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="File to write: .html, .md, .json or .csv.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="TEXT",
    help="Name of a run in the report, in the order of the files (default: the file's name).",
)
def command(files: tuple[str, ...], output: str, labels: tuple[str, ...]) -> None:
    """Write a report of saved results.

    FILE is what load, saturate, compare, tune, hold or check wrote with --json or --save, or a
    recording (.llmtop). Several files are shown side by side. The report says what cannot be
    compared.

    The HTML page needs no network. It can be sent by mail, read on a phone and printed.
    """
    from llmtop.report.recorded import SUFFIX, read_recording
    from llmtop.report.runs import read_result
    from llmtop.report.write import check_name, write_report

    if len(files) > MOST_FILES:
        raise UsageError(f"a report shows at most {MOST_FILES} files, not {len(files)}")
    if labels and len(labels) != len(files):
        raise UsageError(
            f"there are {len(labels)} labels for {len(files)} files",
            "give one --label for each file",
        )
    check_name(output)
    named = labels or distinct([Path(file).stem for file in files])
    runs: list[Run] = []
    for file, label in zip(files, named, strict=True):
        if file.endswith(SUFFIX):
            runs += read_recording(Path(file), label)
        else:
            runs.append(read_result(Path(file), label))
    write_report(output, runs, time.time())
    click.echo(f"{output} written")


def distinct(names: list[str]) -> list[str]:
    """The names, those that appear twice with a number behind them."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        found.append(f"{name} ({place})" if names.count(name) > 1 else name)
    return found
