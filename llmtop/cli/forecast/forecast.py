"""``llmtop forecast NAME [OPTION=VALUE...]``: predict the effect of options or of another load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import Real, Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import require_answering
from llmtop.cli.forecast.slo_option import limits_of, slo_option
from llmtop.cli.options.changes import distinct

if TYPE_CHECKING:
    from llmtop.forecast.knee_forecast import KneeForecast
    from llmtop.forecast.load import Load
    from llmtop.forecast.questions import Answer, Refusal
    from llmtop.operations.slo.ask import Forecast
    from llmtop.operations.slo.fitted_engine import FittedEngine

SPAN_HELP = "as a number or a range such as 448..576"


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@click.argument("pairs", metavar="[OPTION=VALUE]...", nargs=-1)
@cacert_flag
@click.option("-r", "--rate", type=Real(min=0.01), help="Assume this many requests per second.")
@click.option(
    "-c",
    "--streams",
    "--concurrency",
    "streams",
    type=click.IntRange(1, 20000),
    help="Assume a closed loop of streams.",
)
@click.option(
    "--load-factor", type=Real(min=0.01, max=100), default=1.0, help="Multiply the load by this."
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 1000),
    default=1,
    help="Assume that the load is shared by this many engines of this kind.",
)
@click.option("--prompt-tokens", metavar="RANGE", help=f"Prompt length, {SPAN_HELP}.")
@click.option("--output-tokens", metavar="RANGE", help=f"Answer length, {SPAN_HELP}.")
@click.option(
    "--listen",
    type=Span(0.0, 600),
    default=3.0,
    show_default=True,
    help="How long to read the engine before the answer.",
)
@click.option("--knee/--no-knee", default=True, help="Also look for the knee of throughput.")
@slo_option(required=False)
@config_flag
@json_flag
def command(
    name: str,
    pairs: tuple[str, ...],
    rate: float | None,
    streams: int | None,
    load_factor: float,
    replicas: int,
    prompt_tokens: str | None,
    output_tokens: str | None,
    listen: float,
    knee: bool,
    slo: str | None,
    config_file: Any,
    as_json: bool,
) -> int:
    """Forecast latency and throughput of NAME with other options or another load.

    The forecast changes nothing. A model of the engine is fitted to the steps that it has just
    computed. Its scheduler then runs in virtual time, from the present state of the engine. Each
    figure comes with an interval.

        llmtop forecast vllm max_num_seqs=128 max_queued_requests=16

        llmtop forecast vllm --load-factor 1.5

        llmtop forecast vllm --rate 80 --prompt-tokens 448..576 --output-tokens 128

    If too little was observed for an answer, the command reports the reason instead.
    """
    from llmtop.operations.slo.ask import Asked, answer_on
    from llmtop.operations.wiring import Wiring

    if rate is not None and streams is not None:
        raise UsageError("give --rate or --streams, not both")
    limits = limits_of(slo, read(config_file))
    asked = Asked(
        changes=distinct(pairs),
        rate=rate,
        streams=streams,
        factor=load_factor,
        replicas=replicas,
        prompt=span(prompt_tokens, "--prompt-tokens"),
        output=span(output_tokens, "--output-tokens"),
        limits=limits,
        knee=knee,
        listen_s=listen,
    )
    wiring = Wiring()
    if not wiring.is_url(name):
        require_answering(wiring, wiring.owned(name))
    found = asyncio.run(answer_on(wiring, name, asked))
    if as_json:
        document(entry(found.known, found, slo))
    if found.refused is not None:
        if as_json:
            return 1
        raise LlmtopError(f"no forecast: {found.refused.reason}", found.refused.remedy)
    if not as_json:
        for line in lines(found):
            click.echo(line)
        if found.known is not None and found.known.simulated:
            note("this is a simulated engine")
    return 0


def span(text: str | None, flag: str, example: str = "448..576") -> tuple[int, int] | None:
    """Parse ``448..576`` or ``512`` as low and high bound. Raises UsageError for anything else."""
    if text is None:
        return None
    low, dots, high = text.replace(",", "").partition("..")
    if not (low.isascii() and low.isdigit() and (not dots or (high.isascii() and high.isdigit()))):
        raise UsageError(f"{flag} takes a number or a range, not {text[:40]!r}", f"as in {example}")
    least, most = int(low), int(high) if dots else int(low)
    if not 1 <= least <= most <= 10_000_000:
        raise UsageError(f"{flag}: {text[:40]} is not a range from low to high", f"as in {example}")
    return least, most


def entry(known: FittedEngine | None, found: Forecast, slo: str | None) -> dict[str, Any]:
    """The JSON document of a forecast."""
    fit = known.fit if known is not None else None
    return {
        "name": found.name,
        "simulated": known.simulated if known is not None else None,
        "twin": None
        if fit is None
        else {
            "fitted_on_s": fit.seen.seconds,
            "steps": fit.seen.steps,
            "prefills": fit.seen.prefills,
            "launches": fit.seen.launches,
            "median_step_error": fit.median_error,
            "p90_step_error": fit.p90_error,
        },
        "load": load_entry(found.load),
        "slo": slo,
        "settings": dict(found.settings),
        "now": {
            "settings": dict(found.settings_now),
            "measured": dict(known.measured) if known is not None else {},
            "expected": expected_entry(found.now, found.knee_now),
        },
        "expected": expected_entry(found.answer, found.knee),
        "claims": dict(found.claims),
        "on_the_edge": found.answer.on_the_edge if found.answer is not None else None,
        "refused": found.refused.reason if found.refused is not None else None,
        "remedy": found.refused.remedy if found.refused is not None else None,
    }


def load_entry(load: Load | None) -> dict[str, Any] | None:
    """The assumed load, as JSON."""
    if load is None:
        return None
    return {
        "loop": load.loop,
        "requests_per_s" if load.loop == "open" else "streams": load.level,
        "prompt_tokens": load.prompt.mean,
        "output_tokens": load.output.mean,
        "cached_share": load.cached,
    }


def expected_entry(answer: Answer | None, knee: KneeForecast | None) -> dict[str, Any]:
    """The expected figures, as JSON; null for those without a forecast."""
    found = answer.expected if answer is not None else {}

    def one(name: str) -> dict[str, float] | None:
        value = found.get(name)
        return (
            None if value is None else {"value": value.value, "low": value.low, "high": value.high}
        )

    streams = knee.streams if knee is not None else None
    return {
        "output_tokens_per_s": one("output_tokens_per_s"),
        "requests_per_s": one("requests_per_s"),
        "ttft_s": {"p50": one("ttft_p50"), "p95": one("ttft_p95")},
        "tpot_s": {"p50": one("tpot_p50"), "p95": one("tpot_p95")},
        "itl_s": {"p99": one("itl_p99")},
        "goodput_per_s": one("goodput_per_s"),
        "refused_share": one("refused"),
        "knee_streams": None
        if streams is None
        else {"value": streams.value, "low": streams.low, "high": streams.high},
        "knee_refused": _reason(knee.refused) if knee is not None else None,
    }


def _reason(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.reason


def lines(found: Forecast) -> list[str]:
    """A forecast as lines of text."""
    from llmtop.operations.slo.words import forecast_lines

    return forecast_lines(found)
