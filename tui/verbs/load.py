"""``llmtop load NAME|URL``: send load, say what came back and whether to trust the figures."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.plan import Arrival, Loop, Plan
from llmtop.loadgen.results import LoadResult, LoadSnapshot, RequestRecord
from llmtop.tui.verbs.aim import (
    Asking,
    StatusLine,
    aim,
    calibrate_option,
    calibration_entry,
    calibration_for,
    stop_as_ctrl_c_does,
)
from llmtop.tui.verbs.configured import config_flag, read
from llmtop.tui.verbs.kinds import TIMEOUT, Real
from llmtop.tui.verbs.output import document, json_flag, latency, note
from llmtop.tui.verbs.prompting import prompt_options, prompts_of, typed

if TYPE_CHECKING:
    from llmtop.loadgen.calibration import Calibration
    from llmtop.loadgen.pool import Load
    from llmtop.tui.config.file import Config

WORKER_GRACE_S = 10.0  # after which a silent worker is given up on


def entry(
    name: str,
    simulated: bool,
    plan: Plan,
    result: LoadResult,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """A whole run as ``load --json`` shows it. docs/json.md describes the fields."""
    from llmtop.loadgen.shape import parse
    from llmtop.loadgen.trace import unread

    health = result.health
    spaced = plan.loop is Loop.OPEN and any(
        piece.recorded is None for piece in parse(plan.shape, unread).pieces
    )
    return {
        "name": name,
        "simulated": simulated,
        "loop": plan.loop.value,
        "shape": plan.shape,
        "arrival": plan.arrival.value if spaced else None,
        "burstiness": plan.burstiness if spaced and plan.arrival is Arrival.GAMMA else None,
        "seed": plan.seed,
        "requests": {
            "ok": result.ok,
            "failed": result.failed,
            "cut": result.cut,
            "timed_out": result.timed_out,
            "late": result.late,
            "not_sent": result.not_sent,
            "counted": result.counted,
        },
        "unfinished_conversations": result.unfinished,
        "errors": dict(result.errors),
        "duration_s": result.duration_s,
        "prompt_tokens": result.prompt_tokens,
        "cached_tokens": result.cached_tokens,
        "output_tokens": result.output_tokens,
        "output_tokens_per_s": result.output_tokens_per_s,
        "requests_per_s": result.requests_per_s,
        "ttft_s": latency(result.ttft),
        "tpot_s": latency(result.tpot),
        "itl_s": latency(result.itl),
        "e2e_s": latency(result.e2e),
        "service_ttft_s": latency(result.service_ttft),
        "service_e2e_s": latency(result.service_e2e),
        "client": {
            "verdict": health.verdict,
            "clock": health.clock,
            "lag_s": latency(health.lag) if health.lag else None,
            "lateness_s": latency(health.lateness) if health.lateness else None,
            "cpu": health.cpu,
            "run_delay": health.run_delay,
        },
        "calibration": calibration_entry(calibration),
    }


@click.command()
@click.argument("target", metavar="NAME|URL")
@click.option("-c", "--concurrency", type=click.IntRange(1, 20000), help="Streams in flight.")
@click.option("-r", "--rate", type=Real(0.01, 100000), help="Requests a second.")
@click.option("--shape", help='Such as "ramp 1..64 over 30s, hold 64 for 10s", or @NAME.')
@click.option("--open", "is_open", is_flag=True, help="The shape is requests a second.")
@click.option("--trace", metavar="FILE", help="Replay recorded arrivals: seconds, JSONL or CSV.")
@click.option(
    "--trace-speed", default=1.0, show_default=True, type=Real(0.001, 1e6), help="Times as fast."
)
@click.option(
    "--arrival",
    type=click.Choice([arrival.value for arrival in Arrival]),
    help="How requests of an open loop are spaced (default: poisson).",
)
@click.option(
    "--burstiness",
    type=click.FloatRange(min=0.01),
    help="Of gamma arrivals: 1 is Poisson, less comes in bursts, inf is constant.",
)
@click.option("-d", "--duration", default=20.0, show_default=True, type=TIMEOUT, metavar="SECONDS")
@prompt_options
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="The same seed, the same prompts (default: a new one).",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Load processes (default: spare cores)."
)
@click.option(
    "--timeout", default=600.0, show_default=True, type=TIMEOUT, help="Of one request, seconds."
)
@click.option("--save", metavar="FILE", help="Write each request to a .jsonl or .csv file.")
@click.option(
    "--save-hlog", metavar="FILE", help="Write latencies by the second as an HdrHistogram log."
)
@click.option(
    "--save-bench", metavar="FILE", help="Write what `vllm bench serve --save-result` writes."
)
@click.option("--yes", is_flag=True, help="Do not ask before loading another machine.")
@calibrate_option
@config_flag
@json_flag
def command(target: str, timeout: float, yes: bool, as_json: bool, **given: Any) -> int:
    """Send load to an engine: --concurrency (closed loop), --rate (open loop), --shape or --trace.

    Named shapes and prompts are those of llmtop.toml; flags go before what a named one says.
    """
    from llmtop.loadgen.course import check
    from llmtop.loadgen.pool import Load
    from llmtop.tui.report import load_lines
    from llmtop.tui.verbs.harvest import Harvest
    from llmtop.tui.verbs.recording import Recording, check_name
    from llmtop.tui.verbs.saving import check as check_files
    from llmtop.tui.wiring import Wiring

    config = read(given["config_file"])
    plan = planned(given, config)
    parsed = check(plan)
    if parsed.duration is None:
        raise UsageError(
            f"the shape {plan.shape!r} has no end", "end it with a part like `hold 64 for 10s`"
        )
    prompts = prompts_of(given, config, target)
    asked = Asking(prompts, given["model"], given["workers"], timeout, yes)
    wiring = Wiring()
    found = aim(wiring, target, asked, parsed.highest, known=False)
    # Before what takes a while.
    if given["save"]:
        check_name(given["save"])
    check_files([given[name] for name in ("save", "save_hlog", "save_bench") if given[name]])
    stop_as_ctrl_c_does()
    calibration = calibration_for(wiring, given["workers"], anew=given["anew"], quiet=as_json)
    # After that: the files' clocks begin with them, and records count from the load.
    harvest = Harvest(given["save_hlog"], given["save_bench"])
    saved = Recording(given["save"]) if given["save"] else None

    def keep(record: RequestRecord) -> None:
        harvest.add(record)
        if saved is not None:
            saved.add(record)

    try:
        load = Load(
            found.target,
            prompts,
            workers=given["workers"],
            timeout_s=timeout,
            on_record=keep,
            gaps=saved is not None or harvest.detailed,
            calibration=calibration,
        )
        try:
            load.start(plan)
            status = StatusLine(quiet=as_json, every_s=1.0)
            result = watch(load, parsed.duration, timeout, status)
        finally:
            load.close()
        harvest.write(plan, found.target, result)
        if as_json:
            document(entry(found.name, found.simulated, plan, result, calibration))
        else:
            for line in load_lines(plan, result, found.simulated):
                click.echo(line)
    finally:
        if saved is not None:
            saved.close()
    if result.ok == 0:
        worst = max(result.errors, key=lambda key: result.errors[key], default="nothing was sent")
        raise LlmtopError(f"no request succeeded: {worst}", "see `llmtop logs`, or try one request")
    return 0


def planned(given: Mapping[str, Any], config: Config) -> Plan:
    """The load over time that was asked for; flags go before what a named shape says."""
    from llmtop.loadgen.shape import parse
    from llmtop.loadgen.trace import unread
    from llmtop.tui.wiring import fresh_seed

    streams, rate, shape, trace = (given[n] for n in ("concurrency", "rate", "shape", "trace"))
    if streams is not None and rate is not None:
        raise UsageError("give --concurrency or --rate, not both")
    if trace and (shape or streams is not None or rate is not None):
        raise UsageError("a trace says itself when requests go out", "give --trace alone")
    level = rate if rate is not None else streams if streams is not None else 1
    if trace:
        length = f" for {given['duration']:g}s" if typed({"duration": 0}) else ""
        speed = f"{given['trace_speed']:.6f}".rstrip("0").rstrip(".")
        text = f'trace "{Path(trace).absolute()}" speed {speed}{length}'
    else:
        text = shape or f"hold {level:g} for {given['duration']:g}s"
    table = config.shape_table(text)
    recorded = parse(table.shape, unread).is_recorded
    is_open = table.loop == "open" or rate is not None or given["is_open"] or recorded
    arrival = Arrival(given["arrival"] or table.arrival)
    burstiness = table.burstiness
    if given["burstiness"] is not None:
        arrival, burstiness = Arrival.GAMMA, given["burstiness"]
        if given["arrival"] not in (None, arrival.value):
            raise UsageError("only gamma arrivals have a burstiness", "leave --arrival out")
    if not is_open and (given["arrival"] or given["burstiness"] is not None):
        raise UsageError("a closed loop has no arrivals", "give --rate, or --open with --shape")
    return Plan(
        loop=Loop.OPEN if is_open else Loop.CLOSED,
        shape=table.shape,
        # A repeated seed repeats its prompts, which an engine with prefix caching finds again.
        seed=fresh_seed() if given["seed"] is None else given["seed"],
        arrival=arrival,
        burstiness=burstiness,
    )


def watch(load: Load, duration: float, timeout: float, line: StatusLine) -> LoadResult:
    """Wait for the run's end, saying where it stands. Ctrl+C drains it, a second one cuts it."""
    ends = time.monotonic() + duration
    try:
        _finish(load, ends, ends + timeout + WORKER_GRACE_S, line)
    except KeyboardInterrupt:
        try:
            note("\nnothing more is sent; Ctrl+C again cuts what is in flight")
            load.stop(drain=True)
            now = time.monotonic()
            _finish(load, now, now + timeout + WORKER_GRACE_S, line)
        except KeyboardInterrupt:
            note("\ncutting what is in flight ...")
            load.stop(drain=False)
            now = time.monotonic()
            _finish(load, now, now + WORKER_GRACE_S, line)
    line.clear()
    return load.result()


def _finish(load: Load, ends: float, deadline: float, line: StatusLine) -> None:
    """Wait for the load's last request, no longer than to the deadline. ends: of its shape."""
    while not load.finished:
        if time.monotonic() > deadline:
            # Its own time-outs are long over: a worker hangs, stopped or starved.
            note("a load worker does not answer; what it sent is not in the figures")
            return
        select.select([load], [], [], 0.2)
        if line.due:
            line.show(progress(load.snapshot(), ends - time.monotonic()))


def progress(now: LoadSnapshot, left_s: float) -> str:
    """Where the run stands, in one line.

    left_s: until the shape has ended; what is in flight then still finishes.
    """
    from llmtop.tui.format import count, duration
    from llmtop.tui.format import latency as seconds

    words = (
        f"{duration(max(0.0, left_s))} left  "
        f"{now.in_flight} in flight  {now.ok:,} ok  {now.failed:,} failed  "
        f"{count(now.output_tokens_per_s)} tok/s  TTFT p95 {seconds(now.ttft.p95)}"
    )
    if now.oldest_wait_s is not None:
        words += f"  oldest waits {seconds(now.oldest_wait_s)}"
    if now.loop == Loop.OPEN.value and (now.late or now.not_sent):
        words += f"  {now.late:,} late  {now.not_sent:,} not sent"
    if now.thinking:
        words += f"  {now.thinking:,} think"
    return words
