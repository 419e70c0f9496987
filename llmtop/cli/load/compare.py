"""``llmtop compare``: an A/B test of two settings of one engine, or of two engines."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED, stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.load.load_target import (
    calibrate_option,
    calibration_entry,
    calibration_for,
    find_target,
    limit_streams,
    report_option,
    request_flags,
    request_options,
)
from llmtop.cli.options.changes import split
from llmtop.cli.screen.background_recording import add_outcome, record_load_flag

if TYPE_CHECKING:
    from llmtop.loadgen.experiments.comparison import CompareResult


@click.command()
@click.argument(
    "targets", metavar="NAME | URL_A URL_B", nargs=-1, required=True, shell_complete=engine_names
)
@cacert_flag
@click.option(
    "--a",
    "first",
    multiple=True,
    metavar="OPTION=VALUE",
    help="Setting A of the engine. May be repeated.",
)
@click.option(
    "--b",
    "second",
    multiple=True,
    metavar="OPTION=VALUE",
    help="Setting B of the engine. May be repeated.",
)
@click.option(
    "--pairs",
    default=8,
    show_default=True,
    type=click.IntRange(4, 200),
    help="Number of A/B pairs; even.",
)
@click.option(
    "-c",
    "--concurrency",
    default=32,
    show_default=True,
    type=click.IntRange(1, 20000),
    help="Concurrent streams in each run.",
)
@click.option(
    "--run-seconds",
    default=8.0,
    show_default=True,
    type=Span(0.5, 3600),
    help="Length of each run after its warm-up. It is extended up to three times until 20"
    " requests have ended.",
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the result: CSV to FILE.csv, else JSON. May be repeated.",
)
@report_option
@calibrate_option
@request_flags
@record_load_flag
@json_flag
def command(
    targets: tuple[str, ...],
    first: tuple[str, ...],
    second: tuple[str, ...],
    pairs: int,
    concurrency: int,
    run_seconds: float,
    save: tuple[str, ...],
    report_file: str | None,
    recalibrate: bool | None,
    as_json: bool,
    **shared: Any,
) -> int:
    """Compare two settings of NAME (--a and --b), or the engines at two URLs.

    llmtop first compares A with itself, to measure the noise. Then it runs A B B A, repeatedly.
    Options that apply live are changed while NAME runs. Others need restarts: llmtop shows their
    cost and asks first. At the end the engine is as it was before. If llmtop is
    killed, `llmtop ps` shows which options are still changed.
    """
    from llmtop.cli.load.comparison_run import ComparisonPlan, compare_engines, compare_settings
    from llmtop.cli.load.repeated_prompts import DatasetRepeats
    from llmtop.cli.load.saving import (
        check,
        comparison_document,
        first_failure,
        save_comparison,
        write_run,
    )
    from llmtop.operations.repeats import repeat_words
    from llmtop.operations.run_setup import run_setup
    from llmtop.operations.wiring import Wiring
    from llmtop.wording.findings import early_end_reason

    one = _one_engine(targets, first, second)
    if pairs % 2:
        raise UsageError(
            f"--pairs must be even, not {pairs}", "A B B A is two pairs; drift cancels over them"
        )
    check(save, report_file=report_file)
    if any(path.endswith(".hlog") for path in save):
        raise UsageError("a comparison cannot be saved as .hlog", "use .csv or .json")
    asked, wiring = request_options(shared, read(shared["config_file"]), targets[0]), Wiring()
    stop_as_ctrl_c_does()  # a signal must put the options back too
    held_at = limit_streams(concurrency, asked.workers)
    concurrency = held_at or concurrency
    found = [find_target(wiring, text, asked, concurrency) for text in targets]
    # Calibrate once, and only after all checks that can refuse the command.
    calibration = functools.cache(
        lambda: calibration_for(wiring, asked.workers, recalibrate=recalibrate, quiet=as_json)
    )
    repeats = [
        DatasetRepeats(wiring, one, text, asked.prompts)
        for one, text in zip(found, targets, strict=True)
    ]
    plan = ComparisonPlan(
        found, asked, concurrency, pairs, run_seconds, as_json, calibration, repeats
    )
    if one:
        settings = {"A": dict(map(split, first)), "B": dict(map(split, second))}
        outcome = compare_settings(plan, wiring, targets[0], settings)
    else:
        outcome = compare_engines(plan)
    result, labels = outcome.result, outcome.labels
    counted = [repeated for one in repeats if (repeated := one.end()) is not None]
    most_repeated = max(counted, key=lambda one: one.requests, default=None)
    names = (found[0].name, found[-1].name)
    simulated = any(one.simulated for one in found)
    report = comparison_document(
        names,
        labels,
        simulated,
        result,
        outcome.restarts,
        calibration_entry(calibration()),
        held_to=held_at,
        repeats=most_repeated,
    )
    setups = [run_setup(wiring, one.endpoint, asked.prompts, sys.argv[1:]) for one in found]
    report["setup"], report["setup_b"] = setups[0], setups[1] if len(setups) > 1 else None
    add_outcome("compare", found[0].name, report)
    writes = [functools.partial(save_comparison, path, report, result) for path in save]
    if report_file is not None:
        writes.append(functools.partial(write_run, report_file, report))
    unwritten = first_failure(writes)
    if as_json:
        document(report)
    elif result.pairs or outcome.failure is None:
        print_result(result, labels)
        for line in () if most_repeated is None else repeat_words(most_repeated):
            click.echo(f"  {line}")
    if (problem := outcome.failure or unwritten) is not None:
        raise problem
    if outcome.stopped:
        return INTERRUPTED
    if result.gave_up:
        raise LlmtopError(
            f"stopped early: {early_end_reason(result)}", f"try fewer streams; {result.gave_up}"
        )
    if not any(finding.n for finding in result.findings):
        raise LlmtopError(
            "no pair could be counted", "see `client` in --json, or try fewer streams"
        )
    return 0


def print_result(result: CompareResult, labels: tuple[str, str]) -> None:
    """Print a comparison: one sentence, a line for each measure, and the noise (A against A)."""
    from llmtop.wording.findings import comparison_sentence, finding_line, noise_line

    click.echo(comparison_sentence(result, *labels))
    for line in (*map(finding_line, result.findings), noise_line(result)):
        if line is not None:
            click.echo(line)
    if result.left_out:
        number = "1 pair does" if result.left_out == 1 else f"{result.left_out} pairs do"
        click.echo(f"  {number} not count: the client could not keep up")


def _one_engine(targets: tuple[str, ...], first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether to compare two settings of one engine. Raises UsageError for any other arguments
    than those or two engines."""
    if len(targets) == 1 and first and second:
        return True
    if len(targets) == 2 and not first and not second:
        return False
    raise UsageError(
        "give one engine with --a and --b, or two engines without",
        "llmtop compare NAME --a max_num_seqs=64 --b max_num_seqs=256",
    )
