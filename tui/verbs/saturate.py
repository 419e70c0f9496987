"""``llmtop saturate NAME|URL``: how much load an engine holds, and where its throughput peaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError
from llmtop.tui.format import gib
from llmtop.tui.verbs.aim import (
    Aim,
    Asking,
    StatusLine,
    aim,
    asking,
    asking_options,
    calibrate_option,
    calibration_for,
    energy_of,
    load_on,
    stop_as_ctrl_c_does,
    wait_a_beat,
)
from llmtop.tui.verbs.configured import read
from llmtop.tui.verbs.kinds import Real
from llmtop.tui.verbs.output import document, json_flag

if TYPE_CHECKING:
    from llmtop.engines.energy import EngineEnergy
    from llmtop.loadgen.calibration import Calibration
    from llmtop.loadgen.saturate import SaturationResult
    from llmtop.loadgen.slo import Slo
    from llmtop.tui.gauges import EngineGauges
    from llmtop.tui.wiring import Wiring


@click.command()
@click.argument("target", metavar="NAME|URL")
@click.option("--slo", help='Limits of a request: "ttft=500ms,tpot=50ms", or @NAME.')
@click.option(
    "--max", "top", default=1024, show_default=True, type=click.IntRange(1, 20000), help="Streams."
)
@click.option(
    "--level-seconds",
    default=8.0,
    show_default=True,
    type=Real(0.5, 3600),
    help="Each level is measured this long after its warm-up, or until 60 requests have ended,"
    " three times as long at most.",
)
@click.option("--gpu-hour", type=Real(min=0), metavar="PRICE", help="Of one GPU.")
@click.option(
    "--gpus", type=click.IntRange(1, 4096), help="GPUs paid for (default: those it is found on)."
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the result: FILE.csv, FILE.hlog (HdrHistogram), else JSON. May be repeated.",
)
@click.option(
    "--save-bench",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write each level as `vllm bench serve --save-result` does.",
)
@calibrate_option
@asking_options
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
    anew: bool | None,
    as_json: bool,
    **shared: Any,
) -> int:
    """Find the highest load within limits, and the knee of the throughput curve."""
    from llmtop.loadgen import slo as slos
    from llmtop.loadgen.search import MAIN_SHARE
    from llmtop.tui.findings import held, saturation_sentence
    from llmtop.tui.verbs.saving import check, saturation_document, save_levels, save_saturation
    from llmtop.tui.wiring import Wiring

    config = read(shared["config_file"])
    limits = None
    if slo is not None:
        limits = slos.of(config.slo(slo)) if slo.startswith("@") else slos.parse(slo)
    asked = asking(shared, config, target)
    check(save, save_bench)
    stop_as_ctrl_c_does()  # minutes of levels are not to be lost with a connection
    wiring = Wiring()
    found = aim(wiring, target, asked, top)
    calibration = calibration_for(wiring, asked.workers, anew=anew, quiet=as_json)
    energy = energy_of(found)
    gauges = _gauges(wiring, found, energy)
    if gauges is not None:
        gauges.start()
    try:
        result, stopped = search(
            found, asked, limits, top, level_seconds, energy, as_json, gauges, calibration
        )
        cards = gpus or (energy.count if energy is not None else None) or 1
    finally:
        if gauges is not None:
            gauges.close()
        if energy is not None:
            energy.close()
    price = None if gpu_hour is None else gpu_hour * cards
    report = saturation_document(found, result, price, kv_bytes(wiring, found))
    for path in save:
        save_saturation(path, report, result)
    if save_bench is not None:
        save_levels(save_bench, result, found.target)
    if as_json:
        document(report)
    else:
        click.echo(saturation_sentence(result))
        for answer in result.answers:
            if result.slo is not None and answer.share != MAIN_SHARE:
                click.echo(f"  {held(result.slo, answer, result.top, result.ceiling)}.")
        _costs(result, price)
        if (unused := unused_kv(report["kv_cache"])) is not None:
            click.echo(f"  {unused}.")
        if any(not level.steady for level in result.levels):
            click.echo("  Some levels were no steady state: a longer --level-seconds may help.")
    if stopped:
        return 130
    if not any(level.ok for level in result.levels):
        raise LlmtopError("no request succeeded at any level", "try `llmtop load` to see why")
    return 0


def search(
    found: Aim,
    asked: Asking,
    limits: Slo | None,
    top: int,
    level_seconds: float,
    energy: EngineEnergy | None,
    as_json: bool,
    gauges: EngineGauges | None = None,
    calibration: Calibration | None = None,
) -> tuple[SaturationResult, bool]:
    """Run the search to its end; (what was found, whether it was stopped by Ctrl+C)."""
    from llmtop.loadgen.level import LevelResult, LoadClock
    from llmtop.loadgen.saturate import Saturation, SaturationResult
    from llmtop.tui.findings import level_line, streams
    from llmtop.tui.format import duration
    from llmtop.tui.wiring import fresh_seed

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
    load = load_on(found, asked, clock, level_seconds, saturation.take)
    try:
        saturation.begin(load)
        while True:
            wait_a_beat(load)
            fact = saturation.beat()
            if isinstance(fact, SaturationResult):
                line.clear()
                return fact, False
            if isinstance(fact, LevelResult):
                line.keep(level_line(fact, limits))
            if (now := saturation.progress) is not None:
                line.show(
                    f"level {now.done + 1}: {streams(now.level)}, {now.phase}, "
                    f"about {duration(now.left_s)} left"
                )
    except KeyboardInterrupt:
        line.keep("stopped; this is what is known so far")
        return saturation.result(), True
    finally:
        load.close()


def _gauges(wiring: Wiring, found: Aim, energy: EngineEnergy | None) -> EngineGauges | None:
    """What watches the engine meanwhile; None where nothing that we can read answers."""
    from llmtop.tui.gauges import gauges_of
    from llmtop.tui.wiring import Wiring

    endpoint = found.endpoint
    if endpoint is None:
        aside = Wiring(wiring.environ)
        try:
            endpoint = asyncio.run(aside.ask(lambda _: aside.endpoint(found.name)))
        except LlmtopError:
            return None
    return gauges_of(wiring, endpoint, energy.utilisation if energy is not None else lambda: None)


def kv_bytes(wiring: Wiring, found: Aim) -> float | None:
    """The KV cache that the engine reserved on each of its GPUs; None where that is not told."""
    record = found.endpoint.record if found.endpoint is not None else None
    anatomy = wiring.supervisor.anatomy(record) if record is not None else None
    return anatomy.kv if anatomy is not None else None


def unused_kv(entry: dict[str, Any]) -> str | None:
    """How much of the KV cache no level used; None when that is not known."""
    if entry["unused_share"] is None:
        return None
    words = f"{entry['unused_share']:.0%} of the KV cache was reserved and never used"
    if entry["unused_bytes"] is not None:
        words += f", {gib(entry['unused_bytes'])} GiB on each GPU"
    return words


def _costs(result: SaturationResult, price: float | None) -> None:
    """What tokens cost at the highest load within limits; without limits, at the knee."""
    from llmtop.loadgen.search import MAIN_SHARE
    from llmtop.tui.findings import streams

    held = next((a.level for a in result.answers if a.share == MAIN_SHARE), None)
    at = held or (result.knee.level if result.knee else None)
    level = next((one for one in result.levels if one.level == at and one.valid), None)
    if level is None:
        return
    joule = level.tokens_per_joule
    dollars = level.dollars_per_million(price) if price is not None else None
    parts = [f"{joule:.2f} tokens per joule"] if joule is not None else []
    if level.usage.gpu_idle is not None:
        parts.append(f"GPUs idle {level.usage.gpu_idle:.0%} of the time")
    if dollars is not None:
        parts.append(f"{dollars:.3f} dollars per million output tokens")
    if parts:
        click.echo(f"  At {streams(level.level)}: {', '.join(parts)}.")
