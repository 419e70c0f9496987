"""``llmtop load NAME|URL``: send load, say what came back and whether to trust the figures."""

from __future__ import annotations

import asyncio
import select
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.plan import Loop, Plan, Prompts, Target
from llmtop.loadgen.results import LatencySummary, LoadResult, LoadSnapshot
from llmtop.tui.verbs.configured import config_flag, read
from llmtop.tui.verbs.kinds import TIMEOUT, Real
from llmtop.tui.verbs.output import document, json_flag, note

if TYPE_CHECKING:
    from llmtop.loadgen.pool import Load

WORKER_GRACE_S = 10.0  # after which a silent worker is given up on
MODEST_STREAMS = 8  # above this a target on another machine is asked about once


def span(text: str) -> tuple[int, int]:
    """``512`` or ``448..576`` as bounds in tokens."""
    from llmtop.tui.config import checks

    try:
        return checks.span(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a length", "write 512, or 448..576") from None


def typed(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags that stand on the command line: defaults give way to the file."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in flags.items()
        if context.get_parameter_source(name) is not default
    }


def latency(summary: LatencySummary) -> dict[str, Any]:
    """A latency as JSON, in seconds."""
    return {"p50": summary.p50, "p95": summary.p95, "p99": summary.p99, "n": summary.n}


def entry(name: str, simulated: bool, plan: Plan, result: LoadResult) -> dict[str, Any]:
    """A whole run as ``load --json`` shows it. docs/json.md describes the fields."""
    health = result.health
    return {
        "name": name,
        "simulated": simulated,
        "loop": plan.loop.value,
        "shape": plan.shape,
        "seed": plan.seed,
        "requests": {"ok": result.ok, "failed": result.failed, "cut": result.cut},
        "errors": dict(result.errors),
        "duration_s": result.duration_s,
        "output_tokens": result.output_tokens,
        "output_tokens_per_s": result.output_tokens_per_s,
        "requests_per_s": result.requests_per_s,
        "ttft_s": latency(result.ttft),
        "tpot_s": latency(result.tpot),
        "itl_s": latency(result.itl),
        "e2e_s": latency(result.e2e),
        "client": {
            "verdict": health.verdict,
            "clock": health.clock,
            "lag_s": latency(health.lag) if health.lag else None,
            "lateness_s": latency(health.lateness) if health.lateness else None,
            "cpu": health.cpu,
            "run_delay": health.run_delay,
        },
    }


@click.command()
@click.argument("target", metavar="NAME|URL")
@click.option("-c", "--concurrency", type=click.IntRange(1, 20000), help="Streams in flight.")
@click.option("-r", "--rate", type=Real(0.01, 100000), help="Requests a second.")
@click.option("--shape", help='Such as "ramp 1..64 over 30s, hold 64 for 10s", or @NAME.')
@click.option("-d", "--duration", default=20.0, show_default=True, type=TIMEOUT, metavar="SECONDS")
@click.option("--prompts", "asked", metavar="NAME", help="[prompts.NAME] of llmtop.toml.")
@click.option("--prompt-tokens", default="128", show_default=True, metavar="N|A..B")
@click.option("--output-tokens", default="128", show_default=True, metavar="N|A..B")
@click.option("--repetitive", is_flag=True, help="Prompts that n-gram speculation guesses well.")
@click.option("--temperature", default=1.0, show_default=True, type=Real(0, 2))
@click.option("--chat", is_flag=True, help="Use /v1/chat/completions.")
@click.option("--model", help="The model to ask for; by default the one that is served.")
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
@click.option(
    "--save-hlog", metavar="FILE", help="Write latencies by the second as an HdrHistogram log."
)
@click.option(
    "--save-bench", metavar="FILE", help="Write what `vllm bench serve --save-result` writes."
)
@click.option("--yes", is_flag=True, help="Do not ask before loading another machine.")
@config_flag
@json_flag
def command(
    target: str,
    concurrency: int | None,
    rate: float | None,
    shape: str | None,
    duration: float,
    asked: str | None,
    prompt_tokens: str,
    output_tokens: str,
    repetitive: bool,
    temperature: float,
    chat: bool,
    model: str | None,
    seed: int | None,
    workers: int | None,
    timeout: float,
    save_hlog: str | None,
    save_bench: str | None,
    yes: bool,
    config_file: str | None,
    as_json: bool,
) -> int:
    """Send load to an engine: --concurrency (closed loop), --rate (open loop) or a --shape.

    Named shapes and prompts are those of llmtop.toml; flags go before what a named one says.
    """
    from llmtop.loadgen import shape as shapes
    from llmtop.loadgen.discovery import discover_model
    from llmtop.loadgen.pool import Load
    from llmtop.loadgen.transport import is_loopback
    from llmtop.tui.report import load_lines
    from llmtop.tui.verbs.aim import require_running
    from llmtop.tui.verbs.harvest import Harvest
    from llmtop.tui.wiring import Wiring, fresh_seed, is_url

    if concurrency is not None and rate is not None:
        raise UsageError("give --concurrency or --rate, not both")
    loop = Loop.OPEN if rate is not None else Loop.CLOSED
    level = rate if rate is not None else concurrency if concurrency is not None else 1
    config = read(config_file)
    text = config.shape(shape) if shape else f"hold {level:g} for {duration:g}s"
    parsed = shapes.parse(text)
    if parsed.duration is None:
        raise UsageError(
            f"the shape {text!r} has no end", "end it with a part like `hold 64 for 10s`"
        )
    # A repeated seed repeats its prompts, which an engine with prefix caching would find again.
    plan = Plan(loop=loop, shape=text, seed=fresh_seed() if seed is None else seed)
    flags = {
        "prompt_tokens": span(prompt_tokens),
        "output_tokens": span(output_tokens),
        "repetitive": repetitive,
        "temperature": temperature,
    }
    table = config.table.engines.get(target)
    named = asked or (table.prompts if table is not None else "")
    prompts = replace(config.prompts(named) if named else Prompts(), **typed(flags))
    wiring = Wiring()
    if is_url(target):
        from llmtop.engines.recognise import is_simulator, normalise

        url, name, key = normalise(target), target, wiring.api_key
        simulated = asyncio.run(wiring.ask(lambda fetch: is_simulator(url, fetch)))
    else:
        endpoint = wiring.owned(target)
        require_running(wiring, endpoint)
        url, name, simulated = endpoint.url, endpoint.name, endpoint.adapter.simulated
        key = wiring.key_for(endpoint)
    if not is_loopback(url) and not yes and parsed.highest > MODEST_STREAMS:
        if not sys.stdin.isatty():
            raise UsageError(
                f"{url} is another machine", "add --yes to load it without being asked"
            )
        click.confirm(f"{url} is another machine. Send load to it?", abort=True, err=True)
    served = model or discover_model(url, key)
    harvest = Harvest(save_hlog, save_bench)
    aimed = Target(url=url, model=served, chat=chat, api_key=key)
    load = Load(aimed, prompts, workers=workers, timeout_s=timeout, on_record=harvest.add)
    try:
        load.start(plan)
        result = watch(load, parsed.duration, timeout, quiet=as_json and not sys.stderr.isatty())
    finally:
        load.close()
    harvest.write(plan, aimed, result)
    if as_json:
        document(entry(name, simulated, plan, result))
    else:
        for line in load_lines(plan, result, simulated):
            click.echo(line)
    if result.ok == 0:
        worst = max(result.errors, key=lambda key: result.errors[key], default="nothing was sent")
        raise LlmtopError(f"no request succeeded: {worst}", "see `llmtop logs`, or try one request")
    return 0


def watch(load: Load, duration: float, timeout: float, *, quiet: bool) -> LoadResult:
    """Wait for the run's end, saying where it stands once a second. Ctrl+C cuts what is left."""
    said = begun = time.monotonic()
    patience = duration + timeout + WORKER_GRACE_S
    try:
        while not load.finished:
            if time.monotonic() > begun + patience:
                # Its own time-outs are long over: a worker hangs, stopped or starved.
                note("a load worker does not answer; what it sent is not in the figures")
                return load.result()
            select.select([load], [], [], 0.2)
            if not quiet and time.monotonic() - said >= 1.0:
                said = time.monotonic()
                progress(load.snapshot(), begun + duration - said)
    except KeyboardInterrupt:
        note("\ncutting what is in flight ...")
        load.stop(drain=False)
        begun = time.monotonic()
        while not load.finished and time.monotonic() < begun + WORKER_GRACE_S:
            select.select([load], [], [], 0.2)
    if not quiet and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    return load.result()


def progress(now: LoadSnapshot, left_s: float) -> None:
    """One line that rewrites itself on a terminal, one line a second elsewhere.

    left_s: until the shape has ended; what is in flight then still finishes.
    """
    from llmtop.tui.format import count, duration
    from llmtop.tui.format import latency as seconds

    words = (
        f"{duration(max(0.0, left_s))} left  "
        f"{now.in_flight} in flight  {now.ok:,} ok  {now.failed:,} failed  "
        f"{count(now.output_tokens_per_s)} tok/s  TTFT p95 {seconds(now.ttft.p95)}"
    )
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{words}", nl=False, err=True)
    else:
        click.echo(words, err=True)
