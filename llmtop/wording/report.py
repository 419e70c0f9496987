"""Samples as plain lines of text, for commands that print and for simple terminals."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency, Quantiles
from llmtop.printable import clean
from llmtop.wording.format import count, gib, latency, percent, quantile, span


def quantile_line(word: str, found: Quantiles | None) -> str:
    """One latency: three quantiles, the exact mean, the number of observations, the window."""
    if found is None or found.n == 0:
        return f"  {word:<6} p50 --  p95 --  p99 --  n=0"
    parts = [f"{name} {quantile(getattr(found, name))}" for name in ("p50", "p95", "p99")]
    parts.append(f"mean {latency(found.mean)}")
    exact = "" if found.exact is None else f"  exact to {percent(found.exact)}"
    return f"  {word:<6} {'  '.join(parts)}  n={found.n:,}  window {span(found.window_s)}{exact}"


def condition_lines(found: Iterable[Condition]) -> list[str]:
    """The faults of an engine, each with a line of advice."""
    return [
        line for one in found for line in (f"  ! {clean(one.message)}", f"    {clean(one.hint)}")
    ]


def kv_words(sample: EngineSample) -> str:
    """The KV usage, and that of the fullest rank if it has another value."""
    mean, fullest = sample.kv_usage, sample.kv_usage_fullest
    words = percent(mean)
    if mean is None or fullest is None or percent(fullest) == words:
        return words
    return f"{words}, fullest rank {percent(fullest)}"


def sample_lines(
    name: str, simulated: bool, sample: EngineSample, gpus: tuple[GpuSample, ...], gpu_note: str
) -> list[str]:
    """The lines of one sample of an engine, at most one screen. gpu_note: shown without GPUs."""
    used, total = count(sample.kv_tokens_used), count(sample.kv_tokens_total)
    lines = [
        f"{clean(name)}  {clean(sample.model or '--')}{'  (simulated)' if simulated else ''}",
        *condition_lines(sample.conditions),
        f"  running {count(sample.running)}  waiting {count(sample.waiting)}",
        f"  KV cache {kv_words(sample)}  {used}/{total} tokens"
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
            f"/{gib(gpu.memory_total_bytes)}{' unified' if gpu.unified else ''}"
            f"  util {percent(gpu.utilisation)}"
        )
    if not gpus and gpu_note:
        lines.append(f"  GPU -- ({clean(gpu_note)})")
    return lines
