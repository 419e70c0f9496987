"""``llmtop once NAME|URL``: one sample, for scripts and for terminals that cannot draw."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from llmtop.engines.endpoint import Endpoint
from llmtop.engines.samples import EngineSample, GpuSample, Latency, Quantile, Quantiles
from llmtop.tui.verbs.kinds import Real
from llmtop.tui.verbs.output import document, json_flag, note
from llmtop.tui.verbs.running import require_running

WINDOW_S = 3.0


def quantiles(found: Quantiles | None, window_s: float) -> dict[str, Any]:
    """A windowed distribution as JSON: null where buckets cannot tell, and then the bound."""
    if found is None:
        return {"p50": None, "p95": None, "p99": None, "mean": None, "n": 0, "window_s": window_s}
    entry: dict[str, Any] = {}
    for name in ("p50", "p95", "p99"):
        quantile: Quantile | None = getattr(found, name)
        entry[name] = quantile.seconds if quantile and quantile.relation == "=" else None
        if quantile and quantile.relation != "=":
            entry[f"{name}_{'below' if quantile.relation == '<' else 'above'}"] = quantile.seconds
    return {**entry, "mean": found.mean, "n": found.n, "window_s": round(found.window_s, 3)}


def gpu(found: GpuSample) -> dict[str, Any]:
    """One GPU as JSON."""
    return {
        "index": found.index,
        "name": found.name,
        "uuid": found.uuid,
        "memory_total_bytes": found.memory_total_bytes,
        "memory_used_bytes": found.memory_used_bytes,
        "utilisation": found.utilisation,
        "power_w": found.power_w,
        "power_limit_w": found.power_limit_w,
        "energy_j": found.energy_j,
        "temperature_c": found.temperature_c,
        "sm_clock_mhz": found.sm_clock_mhz,
        "throttle": list(found.throttle) if found.throttle is not None else None,
        "processes": [
            {"pid": process.pid, "memory_bytes": process.memory_bytes}
            for process in found.processes
        ],
    }


def entry(
    name: str, simulated: bool, sample: EngineSample, gpus: tuple[GpuSample, ...]
) -> dict[str, Any]:
    """One sample as ``once --json`` shows it. docs/json.md describes the fields."""
    times = {
        f"{latency.value}_s": quantiles(sample.latencies.get(latency), sample.window_s)
        for latency in Latency
    }
    return {
        "name": name,
        "simulated": simulated,
        "time": sample.time,
        "window_s": round(sample.window_s, 3),
        "model": sample.model,
        "running": sample.running,
        "waiting": sample.waiting,
        "kv_usage": sample.kv_usage,
        "kv_tokens_used": sample.kv_tokens_used,
        "kv_tokens_total": sample.kv_tokens_total,
        "output_tokens_per_s": sample.output_tokens_per_s,
        "prompt_tokens_per_s": sample.prompt_tokens_per_s,
        "requests_per_s": sample.requests_per_s,
        "prefix_hit_rate": sample.prefix_hit_rate,
        "preemptions": sample.preemptions,
        "spec_acceptance": sample.spec_acceptance,
        "spec_accepted_length": sample.spec_accepted_length,
        **times,
        "gpus": [gpu(found) for found in gpus],
    }


@click.command()
@click.argument("target", metavar="NAME|URL")
@click.option(
    "--window",
    default=WINDOW_S,
    show_default=True,
    type=Real(min=0.2, max=600),
    metavar="SECONDS",
    help="Rates and percentiles are over this long.",
)
@json_flag
def command(target: str, window: float, as_json: bool) -> None:
    """Print one sample of an engine: queue, KV cache, tokens/s, TTFT, GPUs."""
    from llmtop.engines.gpu import Gpus
    from llmtop.engines.window import Window
    from llmtop.tui.report import sample_lines
    from llmtop.tui.wiring import Wiring

    async def look() -> tuple[Endpoint, EngineSample, str]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(target)
        require_running(wiring, endpoint)
        session = wiring.session(endpoint, Window(window + 1, window + 1))
        try:
            await session.sample()
            await asyncio.sleep(window)
            return endpoint, await session.sample(), session.note
        finally:
            await session.close()
            await wiring.fetch.close()

    endpoint, sample, missing = asyncio.run(look())
    name, simulated = endpoint.name, endpoint.adapter.simulated
    if missing:
        note(f"{name}: {missing}")
    gpus = Gpus()
    found, gpu_note = gpus.read(), gpus.note
    gpus.close()
    if as_json:
        document(entry(name, simulated, sample, found))
        return
    for line in sample_lines(name, simulated, sample, found, gpu_note):
        click.echo(line)
