"""``llmtop report FILE...``: write a report of saved results."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from llmtop import UsageError
from llmtop.cli.recordings.recording_names import recording_names

if TYPE_CHECKING:
    from pathlib import Path

    from llmtop.report.runs import Run

MOST_FILES = 16  # a chart with more curves is unreadable


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE|EXAMPLE...",
    type=click.Path(dir_okay=False),
    shell_complete=recording_names,
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
    recording (.llmtop). An EXAMPLE comes with llmtop; `llmtop replay --list` shows them. Several
    files are shown side by side. The report shows what cannot be compared.

    The HTML page needs no network. It can be sent by mail, read on a phone and printed.
    """
    from llmtop.history.examples import locate
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
    paths = [locate(file) for file in files]
    refuse_input(output, paths)
    named = labels or distinct([path.stem for path in paths])
    runs: list[Run] = []
    for path, label in zip(paths, named, strict=True):
        if path.suffix == SUFFIX:
            runs += read_recording(path, label)
        else:
            runs.append(read_result(path, label))
    write_report(output, runs, time.time())
    click.echo(f"{output} written")


def refuse_input(output: str, paths: Sequence[Path]) -> None:
    """Raise UsageError when the report would overwrite one of its input files."""
    for path in paths:
        with suppress(OSError):
            if os.path.samefile(output, path):
                raise UsageError(
                    f"{output} is an input file of the report",
                    "give the report another name",
                )


def distinct(names: list[str]) -> list[str]:
    """Append their position to names that occur more than once."""
    found: list[str] = []
    for position, name in enumerate(names, 1):
        found.append(f"{name} ({position})" if names.count(name) > 1 else name)
    return found
