"""``llmtop saturate NAME|URL``: the highest load within limits, and the peak throughput."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError
from llmtop.cli.common.configured import read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED, stop_as_ctrl_c_does
from llmtop.cli.common.output import document, json_flag
from llmtop.cli.common.param_types import Real, Span
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.load.load_target import (
    LoadTarget,
    RequestOptions,
    calibrate_option,
    calibration_for,
    energy_of,
    find_target,
    limit_streams,
    load_on,
    poll_load,
    report_option,
    request_flags,
    request_options,
)
from llmtop.cli.screen.background_recording import add_outcome, record_load_flag
from llmtop.wording.format import gib

if TYPE_CHECKING:
    from llmtop.cli.load.repeated_prompts import DatasetRepeats
    from llmtop.engines.gpu.energy import EngineEnergy
    from llmtop.loadgen.core.client_capacity import Calibration
    from llmtop.loadgen.experiments.saturation import SaturationResult
    from llmtop.loadgen.experiments.slo import Slo
    from llmtop.operations.gauges import EngineGauges
    from llmtop.operations.wiring import Wiring


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@click.option("--slo", help='Latency limits per request: "ttft=500ms,tpot=50ms", or @NAME.')
@click.option(
    "--max",
    "top",
    default=1024,
    show_default=True,
    type=click.IntRange(1, 20000),
    help="Highest number of streams to try.",
)
@click.option(
    "--level-seconds",
    default=8.0,
    show_default=True,
    type=Span(0.5, 3600),
    help="Length of each level after its warm-up. It is extended up to three times until 60"
    " requests have ended.",
)
@click.option(
    "--gpu-hour",
    type=Real(min=0),
    metavar="PRICE",
    help="Price of one GPU hour, for cost per token.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 4096),
    help="Number of GPUs to pay for (default: those that the engine uses).",
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the result: CSV to FILE.csv, HdrHistogram log to FILE.hlog, else JSON. May be"
    " repeated.",
)
@click.option(
    "--save-bench",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write one file per level in the format of `vllm bench serve --save-result`.",
)
@report_option
@calibrate_option
@request_flags
@record_load_flag
@json_flag
def command(
    target: str,
    slo: str | None,
    top: int,
    level_seconds: float,
    gpu_hour: float | None,
    gpus: int | None,
    save: tuple[str, ...],
    save_bench: str | None,
    report_file: str | None,
    recalibrate: bool | None,
    as_json: bool,
    **shared: Any,
) -> int:
    """Find the highest load within latency limits, and the knee of the throughput curve.

    The knee is the lowest number of streams with (almost) the highest throughput. More streams
    increase latency and not throughput.
    """
    from llmtop.cli.load.repeated_prompts import DatasetRepeats
    from llmtop.cli.load.saving import (
        check,
        first_failure,
        saturation_document,
        save_levels,
        save_saturation,
        write_run,
    )
    from llmtop.loadgen.experiments import slo as slos
    from llmtop.operations.repeats import repeat_words
    from llmtop.operations.run_setup import run_setup
    from llmtop.operations.wiring import Wiring

    config = read(shared["config_file"])
    limits = None
    if slo is not None:
        limits = slos.of(config.slo(slo)) if slo.startswith("@") else slos.parse(slo)
    asked = request_options(shared, config, target)
    check(save, save_bench, report_file)
    stop_as_ctrl_c_does()  # a lost connection must not lose minutes of results
    wiring = Wiring()
    held_at = limit_streams(top, asked.workers)
    top = held_at or top
    found = find_target(wiring, target, asked, top)
    calibration = calibration_for(wiring, asked.workers, recalibrate=recalibrate, quiet=as_json)
    energy = energy_of(found)
    gauges = _gauges(wiring, found, energy)
    repeats = DatasetRepeats(wiring, found, target, asked.prompts)
    if gauges is not None:
        gauges.start()
    try:
        result, stopped = search(
            found, asked, limits, top, level_seconds, energy, as_json, repeats, gauges, calibration
        )
        repeated = repeats.end()
        gpu_count = gpus or (energy.count if energy is not None else None) or 1
    finally:
        if gauges is not None:
            gauges.close()
        if energy is not None:
            energy.close()
    price = None if gpu_hour is None else gpu_hour * gpu_count
    report = saturation_document(found, result, price, kv_bytes(wiring, found), held_at, repeated)
    report["setup"] = run_setup(wiring, found.endpoint, asked.prompts, sys.argv[1:])
    add_outcome("saturate", found.name, report)
    writes = [partial(save_saturation, path, report, result) for path in save]
    if save_bench is not None:
        writes.append(partial(save_levels, save_bench, result, found.target))
    if report_file is not None:
        writes.append(partial(write_run, report_file, report))
    unwritten = first_failure(writes)
    if as_json:
        document(report)
    else:
        print_result(result, price, report)
        for line in () if repeated is None else repeat_words(repeated):
            click.echo(f"  {line}.")
    if unwritten is not None:
        raise unwritten
    if stopped:
        return INTERRUPTED
    if not any(level.ok for level in result.levels):
        raise LlmtopError("no request succeeded at any level", "try `llmtop load` to see why")
    if (failure := client_failure(result)) is not None:
        raise failure
    return 0


def print_result(result: SaturationResult, price: float | None, report: dict[str, Any]) -> None:
    """Print a search: the result in one sentence, then other shares, cost and caveats.

    price: dollars per hour of all GPUs of the engine. report: the JSON document.
    """
    from llmtop.wording.findings import client_reason, other_answers, saturation_sentence

    click.echo(saturation_sentence(result))
    for line in other_answers(result):
        click.echo(f"  {line}")
    if (reason := client_reason(result)) is not None:
        click.echo(f"  {reason}.")
    _costs(result, price)
    if (unused := unused_kv(report["kv_cache"])) is not None:
        click.echo(f"  {unused}.")
    if any(not level.steady for level in result.levels):
        click.echo("  Some levels did not reach a steady state: a longer --level-seconds may help.")


def client_failure(result: SaturationResult) -> LlmtopError | None:
    """The error of a search that found nothing because this client was the limit; else None."""
    from llmtop.wording.findings import streams

    if not result.client_limited or _found(result):
        return None
    invalid = next((one for one in reversed(result.levels) if not one.valid), None)
    return LlmtopError(
        f"nothing was found: this client is the limit at {streams(result.ceiling or 0)}",
        f"try {(invalid and invalid.health.remedy) or 'fewer streams, or another machine'}",
    )


def _found(result: SaturationResult) -> bool:
    """Whether any level keeps the limits, or without limits whether there is a knee."""
    if result.slo is None:
        return result.knee is not None
    return any(answer.level is not None for answer in result.answers)


def search(
    found: LoadTarget,
    asked: RequestOptions,
    limits: Slo | None,
    top: int,
    level_seconds: float,
    energy: EngineEnergy | None,
    as_json: bool,
    repeats: DatasetRepeats,
    gauges: EngineGauges | None = None,
    calibration: Calibration | None = None,
) -> tuple[SaturationResult, bool]:
    """Run the search. Returns the result, and whether Ctrl+C stopped it.

    limits: None searches the knee only. top: highest number of streams.
    """
    from llmtop.loadgen.experiments.level import LevelResult, LoadClock
    from llmtop.loadgen.experiments.saturation import Saturation, SaturationResult
    from llmtop.operations.wiring import fresh_seed
    from llmtop.wording.findings import level_line, streams
    from llmtop.wording.sentences import remaining

    clock, line = LoadClock(), StatusLine(quiet=as_json)
    saturation = Saturation(
        limits,
        clock.seconds,
        top=top,
        seconds=level_seconds,
        energy=energy or (lambda: None),
        seed=fresh_seed(),
        gauges=gauges,
        calibration=calibration,
    )
    repeats.begin()
    load = load_on(found, asked, clock, level_seconds, repeats.counting(saturation.take))
    repeats.follow(load)
    try:
        saturation.begin(load)
        while True:
            poll_load(load)
            fact = saturation.poll()
            if isinstance(fact, SaturationResult):
                line.clear()
                return fact, False
            if isinstance(fact, LevelResult):
                line.keep(level_line(fact, limits))
            if (now := saturation.progress) is not None:
                line.show(
                    f"level {now.done + 1}: {streams(now.level)}, {now.phase}, "
                    f"{remaining(now.left_s)}"
                )
    except KeyboardInterrupt:
        line.keep("stopped; these are the results so far")
        return saturation.result(), True
    finally:
        load.close()


def _gauges(wiring: Wiring, found: LoadTarget, energy: EngineEnergy | None) -> EngineGauges | None:
    """The reader of the engine's metrics during the search; None when no metrics are found."""
    from llmtop.operations.gauges import gauges_of
    from llmtop.operations.wiring import Wiring

    endpoint = found.endpoint
    if endpoint is None:
        fresh = Wiring(wiring.environ)  # sockets belong to one event loop
        try:
            endpoint = asyncio.run(fresh.ask(lambda _: fresh.endpoint(found.name)))
        except LlmtopError:
            return None
    return gauges_of(wiring, endpoint, energy.utilisation if energy is not None else lambda: None)


def kv_bytes(wiring: Wiring, found: LoadTarget) -> float | None:
    """The size of the KV cache on each GPU, in bytes; None if unknown."""
    record = found.endpoint.record if found.endpoint is not None else None
    memory = wiring.supervisor.memory_report(record) if record is not None else None
    return memory.kv if memory is not None else None


def unused_kv(entry: dict[str, Any]) -> str | None:
    """A sentence about the KV cache that no level used; None if that is unknown.

    entry: ``kv_cache`` of the JSON document.
    """
    if entry["unused_share"] is None:
        return None
    words = f"{entry['unused_share']:.0%} of the KV cache was reserved and never used"
    if entry["unused_bytes"] is not None:
        words += f", {gib(entry['unused_bytes'])} GiB on each GPU"
    return words


def _costs(result: SaturationResult, price: float | None) -> None:
    """Print the cost of tokens at the highest load within limits; without limits, at the knee.

    price: dollars per hour of all GPUs of the engine.
    """
    from llmtop.loadgen.experiments.search import MAIN_SHARE
    from llmtop.wording.findings import streams

    held = next((a.level for a in result.answers if a.share == MAIN_SHARE), None)
    at = held or (result.knee.level if result.knee else None)
    level = next((one for one in result.levels if one.level == at and one.valid), None)
    if level is None:
        return
    per_joule = level.tokens_per_joule
    dollars = level.dollars_per_million(price) if price is not None else None
    parts = [f"{per_joule:.2f} tokens per joule"] if per_joule is not None else []
    if level.usage.gpu_idle is not None:
        parts.append(f"GPUs idle {level.usage.gpu_idle:.0%} of the time")
    if dollars is not None:
        parts.append(f"{dollars:.3f} dollars per million output tokens")
    if parts:
        click.echo(f"  At {streams(level.level)}: {', '.join(parts)}.")
