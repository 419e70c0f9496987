"""``llmtop once NAME|URL``: one sample, for scripts and for terminals without a dashboard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import require_running
from llmtop.engines.core.conditions import HUNG_S, STALE, Condition, frozen, gravest_first
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.records import State
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency, Quantile, Quantiles
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring

WINDOW_S = 3.0
HELD = "SIGSTOP"  # occurs in the message about a process that a signal has stopped
SAMPLE_S = 1.0  # interval of samples: several servers behind one address answer in turn


def quantiles(found: Quantiles | None, window_s: float) -> dict[str, Any]:
    """A windowed distribution as JSON, in seconds.

    A quantile that the buckets do not determine is null, and has fields for its bounds.
    """
    if found is None:
        absent = dict.fromkeys(("p50", "p95", "p99", "mean"))
        return {**absent, "n": 0, "window_s": window_s, "exact_within": None}
    entry: dict[str, Any] = {}
    for name in ("p50", "p95", "p99"):
        quantile: Quantile | None = getattr(found, name)
        entry[name] = quantile.value if quantile is not None else None
        if quantile is not None and quantile.value is None:
            entry |= bounds(name, quantile)
    rest = {"mean": found.mean, "n": found.n, "window_s": round(found.window_s, 3)}
    return {**entry, **rest, "exact_within": found.exact}


def bounds(name: str, quantile: Quantile) -> dict[str, float]:
    """The known bounds of a quantile without a value, in seconds. One side may be missing."""
    known = {f"{name}_at_least": quantile.at_least}
    if quantile.at_most is not None:
        known[f"{name}_at_most"] = quantile.at_most
    if quantile.relation == "<":
        known[f"{name}_below"] = quantile.seconds
    if quantile.relation == ">":
        known[f"{name}_above"] = quantile.seconds
    return known


def gpu(found: GpuSample) -> dict[str, Any]:
    """One GPU as JSON."""
    return {
        "index": found.index,
        "name": found.name,
        "uuid": found.uuid,
        "memory_total_bytes": found.memory_total_bytes,
        "memory_used_bytes": found.memory_used_bytes,
        "memory_unified": found.unified,
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
    """One sample as ``once --json`` prints it. docs/reference/json.md describes the fields."""
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
        "kv_usage_fullest": sample.kv_usage_fullest,
        "stale": is_stale(sample),
        "conditions": [
            {"name": one.name.value, "message": one.message, "hint": one.hint}
            for one in sample.conditions
        ],
        "gpus": [gpu(found) for found in gpus],
    }


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@click.option(
    "--window",
    default=WINDOW_S,
    show_default=True,
    type=Span(0.2, 600),
    help="Window of rates and percentiles.",
)
@json_flag
def command(target: str, window: float, as_json: bool) -> None:
    """Print one sample of an engine: queue, KV cache, tokens/s, TTFT, GPUs.

    The exit code is 1 when the numbers are stale: requests run but no number changes for 8
    seconds, or a signal has stopped the engine's process.
    """
    from llmtop.engines.gpu.devices import Gpus
    from llmtop.engines.metrics.window import Window
    from llmtop.operations.wiring import Wiring
    from llmtop.wording.report import condition_lines, sample_lines

    async def gather() -> tuple[Endpoint, EngineSample, str]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(target)
        require_running(wiring, endpoint)
        longest = max(window, HUNG_S) + 2
        session = wiring.session(endpoint, Window(longest, longest))
        try:
            sample = await sample_over(session.sample, window)
            silent = await asyncio.to_thread(unresponsive, wiring, endpoint)
            # It has just answered, so only a stopped process makes its numbers stale.
            held = [silent] if silent is not None and HELD in silent.message else []
            found = gravest_first((*sample.conditions, *held))
            return endpoint, replace(sample, conditions=found), session.note
        except ScrapeError as error:
            silent = await asyncio.to_thread(unresponsive, wiring, endpoint)
            if silent is None:
                raise
            raise LlmtopError(f"{endpoint.name} is {silent.message}", silent.hint) from error
        finally:
            await session.close()
            await wiring.fetch.close()

    endpoint, sample, missing = asyncio.run(gather())
    name, simulated = endpoint.name, endpoint.adapter.simulated
    if missing:
        note(f"{name}: {missing}")
    gpus = Gpus()
    found, gpu_note = gpus.read(), gpus.note
    gpus.close()
    if as_json:
        document(entry(name, simulated, sample, found))
    else:
        for line in sample_lines(name, simulated, sample, found, gpu_note):
            click.echo(line)
    if is_stale(sample):
        for line in condition_lines(sample.conditions) if as_json else ():
            note(line.strip())
        raise click.exceptions.Exit(1)


async def sample_over(
    read: Callable[[], Awaitable[EngineSample]],
    window: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> EngineSample:
    """Return the sample over a window, in seconds.

    If requests run and no number changes in the window, it continues for up to HUNG_S + SAMPLE_S.
    Only then is it known whether the engine hangs: a step may take longer than a short window.
    """
    sample = await read()
    began = monotonic()  # the first read can take longer than the window on a busy machine
    while (left := began + window - monotonic()) > 0:
        await sleep(min(SAMPLE_S, left))
        sample = await read()
    while _undecided(sample) and monotonic() - began < HUNG_S + SAMPLE_S:
        await sleep(SAMPLE_S)
        sample = await read()
    return sample


def _undecided(sample: EngineSample) -> bool:
    """Whether no number has changed since the first read, but not for long enough to be stale."""
    return (
        sample.unchanged_s is not None
        and sample.unchanged_s >= sample.window_s
        and not is_stale(sample)
    )


def unresponsive(wiring: Wiring, endpoint: Endpoint) -> Condition | None:
    """The condition of an engine of llmtop that a signal has stopped or that does not answer.

    None for an engine that answers, and for one that llmtop did not start.
    """
    if endpoint.record is None:
        return None
    status = wiring.supervisor.status(endpoint.record)
    return frozen(status.phase) if status.state is State.UNRESPONSIVE else None


def is_stale(sample: EngineSample) -> bool:
    """Whether the engine makes no progress, so that its numbers describe the past."""
    return any(one.name in STALE for one in sample.conditions)
