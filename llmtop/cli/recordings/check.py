"""``llmtop check NAME|URL --baseline FILE``: a performance regression test of an engine."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtop import UsageError
from llmtop.cli.common.configured import config_flag
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import TIMEOUT
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.load.load_target import (
    LoadTarget,
    RequestOptions,
    calibrate_option,
    calibration_for,
    find_target,
    report_option,
)
from llmtop.cli.recordings.recording_names import recording_names

if TYPE_CHECKING:
    from llmtop.cli.recordings.repeated_load import RepeatedLoad
    from llmtop.operations.wiring import Wiring
    from llmtop.regression.budget import Budget
    from llmtop.regression.judgement import Judgement
    from llmtop.report.runs import Run

CANNOT_TELL = 3  # exit code
CHECK_S = 290.0  # time of all runs without --runs; with start and end, a check takes 5 minutes
LEAST_RUNS, MOST_RUNS = 8, 30


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@click.option(
    "--baseline",
    required=True,
    type=click.Path(dir_okay=False),
    metavar="FILE|EXAMPLE",
    shell_complete=recording_names,
    help="What to compare with: the JSON of `llmtop load` or of --write-baseline, or a recording"
    " that contains the result of a load.",
)
@click.option(
    "--budget",
    help="How much worse each measure may be (default: tok_s=-3%,ttft_p95=+10%,tpot_p50=+5%).",
)
@click.option(
    "--against",
    metavar="NAME|URL",
    shell_complete=engine_names,
    help="Engine of the baseline; both engines are measured in turn (default: if it still runs).",
)
@click.option(
    "--runs",
    type=click.IntRange(3, 100),
    help="Number of runs on this engine (default: as many as fit into 5 minutes, from 8 to 30).",
)
@click.option("--dataset", metavar="FILE", help="Dataset of a baseline that was made with one.")
@click.option(
    "--write-baseline",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write these runs to FILE, as the baseline of later checks.",
)
@click.option("--junit", type=click.Path(dir_okay=False), metavar="FILE", help="Write JUnit XML.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Append a Markdown summary, such as $GITHUB_STEP_SUMMARY.",
)
@report_option
@click.option("--workers", type=click.IntRange(1, 64), help="Number of load processes.")
@click.option(
    "--timeout", default=120.0, show_default=True, type=TIMEOUT, help="Timeout of one request."
)
@click.option("--yes", is_flag=True, help="Do not ask before sending load to another machine.")
@calibrate_option
@config_flag
@json_flag
def command(
    target: str,
    baseline: str,
    budget: str | None,
    against: str | None,
    runs: int | None,
    as_json: bool,
    **params: Any,
) -> int:
    """Repeat the load of a baseline and judge whether the engine is as good as it was.

    Exit code 0: as good within the budget. 1: worse, with its interval. 3: cannot tell; the output
    shows the number of runs that would be enough. Many short runs give a better answer than few
    long ones: record a load of 5 to 10 seconds.

    If the engine of the baseline still runs, both engines are measured in turn. Otherwise the new
    runs are compared with the recorded ones. A baseline of one run has no spread of its own.
    """
    from llmtop.cli.load.saving import check as check_files
    from llmtop.cli.recordings.repeated_load import (
        SEEDS,
        RepeatedLoad,
        plan_again,
        prompts_again,
    )
    from llmtop.history.examples import locate
    from llmtop.operations.wiring import Wiring
    from llmtop.regression.baseline import load_of, read_baseline
    from llmtop.regression.budget import DEFAULT, parse_budget

    budgets = parse_budget(budget or DEFAULT)
    old = read_baseline(locate(baseline))
    files = [params[name] for name in ("write_baseline", "junit", "summary") if params[name]]
    check_files(files, report_file=params["report_file"])
    sent = load_of(old)
    plan, prompts = plan_again(sent), prompts_again(sent, params["dataset"])
    model = sent.get("model") if against is None else None
    asked = RequestOptions(
        prompts, model if isinstance(model, str) else None, params["workers"], params["timeout"],
        params["yes"],
    )  # fmt: skip
    stop_as_ctrl_c_does()
    wiring = Wiring()
    from llmtop.loadgen.workload.schedule import check as check_plan

    highest = check_plan(plan).highest
    found = find_target(wiring, target, asked, highest)
    other = _other(wiring, old, found, against, asked, highest)
    calibration = calibration_for(
        wiring, asked.workers, recalibrate=params["recalibrate"], quiet=as_json
    )
    load = RepeatedLoad(
        plan,
        prompts,
        workers=asked.workers,
        timeout_s=asked.timeout_s,
        calibration=calibration,
        new_seed=lambda: secrets.randbelow(SEEDS),
    )
    began = time.time()
    if runs is None:
        runs = runs_within(CHECK_S, load.duration, 1 if other is None else 2)
    theirs, ours = measure(load, found, other, runs, quiet=as_json)
    judgements = judged(budgets, old, theirs, ours)
    report = _document(wiring, found, other, old, theirs, ours, judgements, load, began)
    return _finish(report, judgements, params, time.time() - began, as_json)


def runs_within(seconds: float, each_s: float, engines: int) -> int:
    """The number of runs of each engine that fit into a time, after one warm-up run each.

    seconds: the time. each_s: seconds of one run. engines: 1 or 2.
    """
    return min(MOST_RUNS, max(LEAST_RUNS, int(seconds / (each_s * engines)) - 1))


def measure(
    load: RepeatedLoad, found: LoadTarget, other: LoadTarget | None, runs: int, *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the load: a warm-up of each engine, then (old, new, new, old) repeatedly.

    Returns the runs of the baseline's engine and of this one, without the warm-ups. other: the
    baseline's engine, None if it does not run. runs: number of counted runs of each engine.
    """
    theirs: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    engines = [found] if other is None else [other, found]
    order = [(one, False) for one in engines]
    for number in range(runs):
        order += [(one, True) for one in (engines if number % 2 == 0 else engines[::-1])]
    line = StatusLine(quiet=quiet, every_s=1.0)
    for number, (one, counts) in enumerate(order, 1):
        what = f"run {number} of {len(order)}, {one.name}" + ("" if counts else ", warm-up")
        line.keep(f"{what}, {load.duration:g} s")
        result = load.run(one, line)
        if counts:
            (ours if one is found else theirs).append(result)
    return theirs, ours


def judged(
    budgets: tuple[Budget, ...],
    old: Run,
    theirs: list[dict[str, Any]],
    ours: list[dict[str, Any]],
) -> list[Judgement]:
    """Judge each budget. theirs: new runs of the baseline's engine, [] when it does not run."""
    from llmtop.regression.baseline import pairs, runs_of, values
    from llmtop.regression.judgement import judge_pairs, judge_runs

    found = []
    for one in budgets:
        if theirs:
            found.append(judge_pairs(one, pairs(theirs, ours, one.measure), len(budgets)))
        else:
            recorded = values(runs_of(old), one.measure)
            found.append(judge_runs(one, recorded, values(ours, one.measure), len(budgets)))
    return found


def _other(
    wiring: Wiring,
    old: Run,
    found: LoadTarget,
    against: str | None,
    asked: RequestOptions,
    highest: float,
) -> LoadTarget | None:
    """The engine of the baseline; None when it no longer runs or is the same engine.

    Raises UsageError when ``against`` is the same engine.
    """
    from llmtop.report.fields import number, text

    if against is not None:
        other = find_target(wiring, against, asked, highest)
        if other.target.url == found.target.url:
            raise UsageError("--against names the same engine", "omit it, or name another one")
        return other
    name, began = text(old.document, "name"), number(old.document, "setup", "engine", "started_at")
    for record in wiring.supervisor.records():
        if record.name == name and record.started_at == began and record.ended_at is None:
            other = find_target(wiring, name, asked, highest)
            if other.target.url != found.target.url:
                note(f"{name}, the engine of the baseline, still runs: both run in turn")
                return other
    return None


def _document(
    wiring: Wiring,
    found: LoadTarget,
    other: LoadTarget | None,
    old: Run,
    theirs: list[dict[str, Any]],
    ours: list[dict[str, Any]],
    judgements: list[Judgement],
    load: RepeatedLoad,
    began: float,
) -> dict[str, Any]:
    from llmtop.operations.run_setup import run_setup
    from llmtop.regression.baseline import load_of, runs_of, stored_fields
    from llmtop.regression.judgement import overall
    from llmtop.regression.summary import entry, sentence

    verdict = overall(judgements)
    sent = {**load_of(old), "prompts": None, "model": found.target.model}
    setup = run_setup(wiring, found.endpoint, load.prompts, sys.argv[1:])
    setup["load"] = {**sent, "prompts": setup["load"]["prompts"]}
    return {
        "kind": "check",
        "name": found.name,
        "model": found.target.model,
        "simulated": found.simulated,
        "time": began,
        "summary": sentence(found.name, verdict, judgements),
        "verdict": verdict.value,
        "baseline": old.label,
        "against": other.name if other is not None else None,
        "in_turn": other is not None,
        "measures": [entry(one) for one in judgements],
        "baseline_runs": [stored_fields(one) for one in (theirs or runs_of(old))],
        "runs": [stored_fields(one) for one in ours],
        "setup": setup,
    }


def _finish(
    report: dict[str, Any],
    judgements: list[Judgement],
    params: Mapping[str, Any],
    seconds: float,
    as_json: bool,
) -> int:
    """Write the files, print the verdict, return the exit code."""
    from llmtop.cli.load.saving import dumps, first_failure, write, write_run
    from llmtop.regression.judgement import Verdict
    from llmtop.regression.summary import junit, markdown

    sentence = report["summary"]
    writes: list[Callable[[], None]] = []
    if params["write_baseline"]:
        baseline = {**report, "kind": "baseline", "summary": f"{len(report['runs'])} runs"}
        for name in ("verdict", "baseline", "against", "in_turn", "measures", "baseline_runs"):
            del baseline[name]
        writes.append(partial(write, Path(params["write_baseline"]), dumps(baseline)))
    if params["junit"]:
        suite = junit(report["name"], judgements, seconds)
        writes.append(partial(write, Path(params["junit"]), suite))
    if params["summary"]:
        table = markdown(sentence, judgements)
        writes.append(partial(write, Path(params["summary"]), table, append=True))
    if params["report_file"]:
        writes.append(partial(write_run, params["report_file"], report))
    unwritten = first_failure(writes)
    if as_json:
        document(report)
    else:
        click.echo(sentence)
        if not report["in_turn"] and len(report["baseline_runs"]) == 1:
            click.echo("  The baseline is one run: its own spread is not known.")
    if unwritten is not None:
        raise unwritten
    codes = {Verdict.GOOD.value: 0, Verdict.WORSE.value: 1}
    return codes.get(report["verdict"], CANNOT_TELL)
