"""Facts as plain lines of text, for verbs that print and for terminals that cannot draw."""

from __future__ import annotations

from llmtop.engines.samples import EngineSample, GpuSample, Latency, Quantiles
from llmtop.loadgen.health import VALID
from llmtop.loadgen.plan import Loop, Plan
from llmtop.loadgen.results import LatencySummary, LoadResult
from llmtop.tui.format import clean, count, duration, gib, latency, percent, quantile, rate, span


def quantile_line(word: str, found: Quantiles | None) -> str:
    """One latency: three quantiles, how many observations, over how long."""
    if found is None or found.n == 0:
        return f"  {word:<6} p50 --  p95 --  p99 --  n=0"
    parts = [f"{name} {quantile(getattr(found, name))}" for name in ("p50", "p95", "p99")]
    return f"  {word:<6} {'  '.join(parts)}  n={found.n:,}  window {span(found.window_s)}"


def sample_lines(
    name: str, simulated: bool, sample: EngineSample, gpus: tuple[GpuSample, ...], gpu_note: str
) -> list[str]:
    """One sample of an engine, about a screenful."""
    used, total = count(sample.kv_tokens_used), count(sample.kv_tokens_total)
    lines = [
        f"{clean(name)}  {clean(sample.model or '--')}{'  (simulated)' if simulated else ''}",
        f"  running {count(sample.running)}  waiting {count(sample.waiting)}",
        f"  KV cache {percent(sample.kv_usage)}  {used}/{total} tokens"
        f"  prefix hit {percent(sample.prefix_hit_rate)}",
        f"  tokens/s output {count(sample.output_tokens_per_s)}"
        f"  prompt {count(sample.prompt_tokens_per_s)}",
        quantile_line("TTFT", sample.latencies.get(Latency.TTFT)),
        quantile_line("ITL", sample.latencies.get(Latency.ITL)),
        quantile_line("TPOT", sample.latencies.get(Latency.TPOT)),
        quantile_line("e2e", sample.latencies.get(Latency.E2E)),
    ]
    for gpu in gpus:
        lines.append(
            f"  GPU {gpu.index} {clean(gpu.name)}  {gib(gpu.memory_used_bytes)}"
            f"/{gib(gpu.memory_total_bytes)}  util {percent(gpu.utilisation)}"
        )
    if not gpus and gpu_note:
        lines.append(f"  GPU -- ({gpu_note})")
    return lines


def summary_line(word: str, found: LatencySummary) -> str:
    """One latency of a whole run."""
    parts = [f"{name} {latency(getattr(found, name))}" for name in ("p50", "p95", "p99")]
    return f"  {word:<5} {'  '.join(parts)}  n={found.n:,}"


def load_lines(plan: Plan, result: LoadResult, simulated: bool) -> list[str]:
    """A whole run of load, as a person reads it."""
    health = result.health
    lag = health.lag
    told = any(cause.startswith("reads lag") for cause in health.causes)
    late = f", lag p99 {latency(lag.p99)} n={lag.n:,}" if lag and lag.n and not told else ""
    word = "client " if health.verdict == VALID else ""  # else the verdict names it itself
    lines = [
        f"{plan.loop.value} loop, {plan.shape}, {duration(result.duration_s)}"
        + (", simulated engine" if simulated else ""),
        f"  requests {result.ok:,} ok  {result.failed:,} failed  {result.cut:,} cut",
        *_missed(plan, result),
        f"  output {count(result.output_tokens_per_s)} tok/s"
        f"  {rate(result.requests_per_s)} requests/s",
        summary_line("TTFT", result.ttft),
        summary_line("TPOT", result.tpot),
        summary_line("ITL", result.itl),
        summary_line("e2e", result.e2e),
        *_from_sending(plan, result),
        *_counts(result),
        f"  {word}{health.verdict} ({health.clock} clock{late})",
    ]
    lines += [f"  {number:,} x {clean(reason)}" for reason, number in result.errors.items()]
    return lines


def _missed(plan: Plan, result: LoadResult) -> list[str]:
    """What failed because of time: too long, too late, never. The first and last are failures."""
    parts = [f"{result.timed_out:,} timed out"] if result.timed_out else []
    if plan.loop is Loop.OPEN:
        parts += [f"{result.late:,} sent late", f"{result.not_sent:,} not sent"]
    return [f"  of these {'  '.join(parts)}"] if parts else []


def _from_sending(plan: Plan, result: LoadResult) -> list[str]:
    """In the open loop: the figures that forget how late a request was sent."""
    if plan.loop is Loop.CLOSED:
        return []
    return [
        "  from sending, not from when it was due:",
        summary_line("TTFT", result.service_ttft),
        summary_line("e2e", result.service_e2e),
    ]


def _counts(result: LoadResult) -> list[str]:
    lines = []
    if result.cached_tokens is not None and result.prompt_tokens:
        share = result.cached_tokens / result.prompt_tokens
        lines.append(f"  prompt {result.prompt_tokens:,} tokens  {percent(share)} of them cached")
    if result.counted:
        lines.append(f"  {result.counted:,} requests without usage: their tokens are chunks")
    if result.unfinished:
        lines.append(
            f"  {result.unfinished:,} conversations were not finished: the load ended,"
            " sank, or had no more memory for them, before their next turn was due"
        )
    return lines
