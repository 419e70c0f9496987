"""``llmtop load NAME|URL``: send load, and report the results and their validity."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtop import UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED, stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import TIMEOUT, Real
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.load.load_target import (
    RequestOptions,
    calibrate_option,
    calibration_for,
    find_target,
    report_option,
)
from llmtop.cli.load.prompting import explicit, prompt_options, prompts_of
from llmtop.cli.load.watching import require_result, watch
from llmtop.cli.screen.background_recording import add_outcome, is_recorded, record_load_flag
from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.loadgen.workers.load import Load


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@click.option(
    "-c",
    "--concurrency",
    "--streams",
    "concurrency",
    type=click.IntRange(1, 20000),
    help="Concurrent streams (closed loop).",
)
@click.option("-r", "--rate", type=Real(0.01, 100000), help="Requests per second (open loop).")
@click.option("--shape", help='Load over time: "ramp 1..64 over 30s, hold 64 for 10s", or @NAME.')
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="Levels of --shape are requests per second, not streams.",
)
@click.option(
    "--trace", metavar="FILE", help="Replay recorded arrival times: seconds, JSONL or CSV."
)
@click.option(
    "--trace-speed",
    default=1.0,
    show_default=True,
    type=Real(0.001, 1e6),
    help="Speed factor of the replay.",
)
@click.option(
    "--arrival",
    type=click.Choice([arrival.value for arrival in Arrival]),
    help="Distribution of arrivals in the open loop (default: poisson).",
)
@click.option(
    "--burstiness",
    type=click.FloatRange(min=0.01),
    help="Shape of gamma arrivals: 1 is Poisson, less is burstier, inf is constant.",
)
@click.option(
    "-d",
    "--duration",
    default=20.0,
    show_default=True,
    type=TIMEOUT,
    help="Length of the load.",
)
@prompt_options
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="Random seed; the same seed sends the same prompts (default: a new seed).",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Number of load processes (default: spare cores)."
)
@click.option(
    "--timeout", default=600.0, show_default=True, type=TIMEOUT, help="Timeout of one request."
)
@click.option("--save", metavar="FILE", help="Write one line per request to a .jsonl or .csv file.")
@click.option(
    "--save-hlog", metavar="FILE", help="Write an HdrHistogram log with one interval per second."
)
@click.option(
    "--save-bench",
    metavar="FILE",
    help="Write the results in the format of `vllm bench serve --save-result`.",
)
@report_option
@click.option("--yes", is_flag=True, help="Do not ask before sending load to another machine.")
@calibrate_option
@config_flag
@record_load_flag
@json_flag
def command(
    target: str, timeout: float, yes: bool, report_file: str | None, as_json: bool, **params: Any
) -> int:
    """Send load to an engine and report latency, throughput and errors.

    In a closed loop (--concurrency), each stream sends its next request when the last one ends. In
    an open loop (--rate), requests are sent at given times, whether or not earlier ones ended.
    --shape and --trace define load that changes over time.

    llmtop.toml defines named shapes and prompts; options override them.
    """
    from llmtop.cli.load.load_entry import entry, plan_entry
    from llmtop.cli.load.load_report import load_lines
    from llmtop.cli.load.recording import Recording, check_name
    from llmtop.cli.load.repeated_prompts import CacheShare
    from llmtop.cli.load.request_export import RequestExport
    from llmtop.cli.load.saving import check as check_files
    from llmtop.cli.load.saving import first_failure, write_run
    from llmtop.loadgen.export.latency_counts import LatencyCounts
    from llmtop.loadgen.workers.load import Load
    from llmtop.loadgen.workload.schedule import check
    from llmtop.operations.repeats import SeedBook, named, repeats_of
    from llmtop.operations.run_setup import run_setup
    from llmtop.operations.wiring import Wiring

    config = read(params["config_file"])
    plan = planned(params, config)
    parsed = check(plan)
    if parsed.duration is None:
        raise UsageError(
            f"the shape {plan.shape!r} has no end", "end it with a part like `hold 64 for 10s`"
        )
    prompts = prompts_of(params, config, target)
    asked = RequestOptions(prompts, params["model"], params["workers"], timeout, yes)
    wiring = Wiring()
    found = find_target(wiring, target, asked, parsed.highest, known=False)
    # Check the files before the calibration, which takes a second.
    if params["save"]:
        check_name(params["save"])
    files = [params[name] for name in ("save", "save_hlog", "save_bench") if params[name]]
    check_files(files, report_file=report_file)
    stop_as_ctrl_c_does()
    calibration = calibration_for(
        wiring, params["workers"], recalibrate=params["recalibrate"], quiet=as_json
    )
    # After the calibration: the times in the files count from here, those of records from the load.
    export = RequestExport(params["save_hlog"], params["save_bench"])
    saved = Recording(params["save"]) if params["save"] else None

    counts = LatencyCounts() if is_recorded() else None

    def keep(record: RequestRecord) -> None:
        export.add(record)
        if counts is not None:
            counts.add(record)
        if saved is not None:
            saved.add(record)

    seeds, share = SeedBook(wiring.state.root), CacheShare(wiring, target)
    what, key = named(prompts, plan.seed)
    before_s = seeds.before_s(found.engine, key)
    may_repeat = before_s is not None or bool(prompts.dataset)
    try:
        load = Load(
            found.target,
            prompts,
            workers=params["workers"],
            timeout_s=timeout,
            on_record=keep,
            gaps=saved is not None or export.detailed,
            calibration=calibration,
            on_snapshot=found.on_snapshot,
        )
        try:
            if may_repeat:
                share.read()
            load.start(plan)
            note_limit(load, plan, parsed.highest)
            status = StatusLine(quiet=as_json, every_s=1.0)
            result, interrupted = watch(load, parsed.duration, timeout, status)
            gone = load.all_gone
        finally:
            load.close()
        seeds.add(found.engine, key)
        repeats = repeats_of(what, before_s, result, share.read() if may_repeat else None)
        report = entry(
            found.name,
            found.simulated,
            plan,
            result,
            calibration,
            repeats=repeats,
            run=load.run,
            notes=found.notes,
        )
        if as_json or report_file is not None or is_recorded():
            sent = {**plan_entry(plan), "model": found.target.model}
            report["setup"] = run_setup(wiring, found.endpoint, prompts, sys.argv[1:], sent)
        writes: list[Callable[[], None]] = [lambda: export.write(plan, found.target, result)]
        if report_file is not None:
            writes.append(partial(write_run, report_file, report))
        failure = first_failure(writes)
        add_outcome("load", found.name, report, counts.pairs() if counts is not None else {})
        if as_json:
            document(report)
        else:
            for line in load_lines(plan, result, found.simulated, repeats):
                click.echo(line)
        if failure is not None:
            raise failure
    finally:
        if saved is not None:
            saved.close()
    if interrupted:
        return INTERRUPTED
    known = found.endpoint is not None and found.endpoint.record is not None
    require_result(result, gone, at_url=not known)
    return 0


def note_limit(load: Load, plan: Plan, highest: float) -> None:
    """Print a note when a closed loop needs more streams than the process may open sockets."""
    if plan.loop is Loop.CLOSED and highest > load.limit:
        note(
            f"limited to {load.limit:,} of {highest:,.0f} streams by the limit of open files"
            " (ulimit -n)"
        )


def planned(params: Mapping[str, Any], config: Config) -> Plan:
    """The load over time. Options override those of a named shape. Raises UsageError."""
    from llmtop.loadgen.workload.shape import parse
    from llmtop.loadgen.workload.trace import unread
    from llmtop.operations.wiring import fresh_seed

    streams, rate, shape, trace = (params[n] for n in ("concurrency", "rate", "shape", "trace"))
    if streams is not None and rate is not None:
        raise UsageError("give --concurrency or --rate, not both")
    if trace and (shape or streams is not None or rate is not None):
        raise UsageError("a trace defines the times of its requests", "omit the other load options")
    level = rate if rate is not None else streams if streams is not None else 1
    if trace:
        length = f" for {params['duration']:g}s" if explicit({"duration": 0}) else ""
        speed = f"{params['trace_speed']:.6f}".rstrip("0").rstrip(".")
        text = f'trace "{Path(trace).absolute()}" speed {speed}{length}'
    else:
        text = shape or f"hold {level:g} for {params['duration']:g}s"
    table = config.shape_table(text)
    recorded = parse(table.shape, unread).is_recorded
    is_open = table.loop == "open" or rate is not None or params["is_open"] or recorded
    arrival = Arrival(params["arrival"] or table.arrival)
    burstiness = table.burstiness
    if params["burstiness"] is not None:
        arrival, burstiness = Arrival.GAMMA, params["burstiness"]
        if params["arrival"] not in (None, arrival.value):
            raise UsageError("only gamma arrivals have a burstiness", "omit --arrival")
    if not is_open and (params["arrival"] or params["burstiness"] is not None):
        raise UsageError("a closed loop has no arrivals", "give --rate, or --open with --shape")
    return Plan(
        loop=Loop.OPEN if is_open else Loop.CLOSED,
        shape=table.shape,
        # The same seed makes the same prompts, which an engine may have in its prefix cache.
        seed=fresh_seed() if params["seed"] is None else params["seed"],
        arrival=arrival,
        burstiness=burstiness,
    )
