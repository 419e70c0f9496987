"""Steps and requests of an engine as plain lines of text."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping

from llmtop.engines.core.steps import StepMeans, Steps
from llmtop.printable import clean
from llmtop.wording.format import count, latency, percent, rate, span

PROCESSES = ("rank ", "front end ")


def step_summary(found: Steps) -> list[str]:
    """The number of steps, percentiles of their duration (nearest rank), and the host gap."""
    steps = found.steps
    if not steps:
        return ["no steps yet: the engine has had no requests"]
    durations = sorted(step.duration_s for step in steps)
    p95 = durations[max(0, -(-95 * len(durations) // 100) - 1)]
    lines = [
        f"{len(steps):,} steps: p50 {latency(statistics.median_low(durations))}"
        f"  p95 {latency(p95)}  longest {latency(durations[-1])}"
        f"  over {latency(sum(durations) / max(found.ranks, 1))} of work"
    ]
    gaps = [(step.host_gap_s, step.duration_s) for step in steps if step.host_gap_s is not None]
    busy = sum(duration for _, duration in gaps)
    if busy > 0:
        lines.append(f"host gap: {percent(sum(gap for gap, _ in gaps) / busy)} of that time")
    if found.lost:
        lines.append(
            f"{count(found.lost)} steps are missing between these: they were overwritten before"
            " they were read"
        )
    return lines


def means_lines(found: StepMeans) -> list[str]:
    """The means over decode steps, for an engine that does not report single steps."""
    if not found.steps:
        return [f"no decode steps in {span(found.window_s)}"]
    lines = [
        f"{found.steps:,} decode steps in {span(found.window_s)}: mean {latency(found.mean_s)}"
        f"  mean batch {rate(found.mean_requests)}  {count(found.tokens)} tokens"
    ]
    if found.base_s is not None and found.per_request_s is not None:
        lines.append(
            f"a step takes {latency(found.base_s)} and {latency(found.per_request_s)} more for"
            " each request (least squares)"
        )
    if found.prefill_tokens:
        lines.append(f"prefill: {count(found.prefill_tokens)} tokens in {latency(found.prefill_s)}")
    return lines


def missing_lines(missing: Mapping[str, str], shown: Collection[str] = ()) -> list[str]:
    """One line for each value that is not known, and for each process that does not answer.

    missing: the reason by name. shown: names of the values of interest.
    """
    return [
        f"not shown: {clean(name)}: {clean(reason)}"
        for name, reason in missing.items()
        if name in shown or name.startswith(PROCESSES)
    ]
