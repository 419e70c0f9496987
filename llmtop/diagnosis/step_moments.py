"""Computes the moments of an engine, which decide its state, from its steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.steps.fit import StepFit, extra_tokens
from llmtop.engines.core.steps import Step

EVERY_S = 1.0
PREEMPTIONS_S = 10.0  # period in which preemptions are counted


def moments_of(
    steps: Sequence[Step],
    now: float,
    *,
    cap: float | None = None,
    kv_blocks: float | None = None,
    fitted: StepFit | None = None,
) -> list[Moment]:
    """One moment for each second, oldest first, the last one at ``now`` (unix seconds).

    steps: ordered by their end. cap: the batch limit, all ranks together. kv_blocks: the size of
    the KV cache in blocks, all ranks together. fitted: the cost of load, from which ``marginal`` is
    computed. A second without a step has no moment, because an engine without steps is idle or
    hangs, and other numbers decide which. The exception is the last moment: it repeats the newest
    step if that is not older than ``EVERY_S``.
    """
    if not steps:
        return []
    ranks = sorted({step.rank for step in steps})
    newest: dict[int, Step] = {}
    found: list[Moment] = []
    preempted: list[tuple[float, int]] = []
    second: list[Step] = []
    due = steps[0].end + EVERY_S

    def add_moment(time: float) -> None:
        nonlocal preempted
        rows = list(newest.values())
        preempted = [(at, count) for at, count in preempted if at > time - PREEMPTIONS_S]
        free = [row.kv_free_blocks for row in rows if row.kv_free_blocks is not None]
        whole = len(free) == len(ranks)
        usage = 1 - sum(free) / kv_blocks if kv_blocks and whole else None
        found.append(
            Moment(
                time,
                running=sum(row.running for row in rows),
                waiting=sum(row.waiting for row in rows),
                cap=cap,
                kv_usage=None if usage is None else min(1.0, max(0.0, usage)),
                preemptions_per_min=sum(n for _, n in preempted) * 60 / PREEMPTIONS_S,
                tokens_per_s=sum(map(_emitted, second)) / EVERY_S,
                marginal=marginal(second, fitted),
            )
        )
        second.clear()

    for step in steps:
        if step.end >= due:
            add_moment(due)
            due = max(due + EVERY_S, step.end)
        newest[step.rank] = step
        second.append(step)
        if step.preempted:
            preempted.append((step.end, step.preempted))
    if now >= due and now - steps[-1].end <= EVERY_S:
        add_moment(now)
    return found


def marginal(steps: Sequence[Step], fitted: StepFit | None) -> float | None:
    """The share of the time that grows with the load, 0..1; None for unknown.

    Idle time counts as time that does not grow.
    """
    requests = sum(step.requests for step in steps)
    busy = sum(step.duration_s for step in steps)
    if fitted is None or not requests or busy <= 0:
        return None
    extra = sum(extra_tokens(step) for step in steps) / requests
    idle = sum(step.idle_s or 0.0 for step in steps)
    return fitted.growing(requests / len(steps), extra) * busy / (busy + idle)


def kv_blocks_of(steps: Sequence[Step], kv_usage: float | None) -> float | None:
    """The size of the KV cache in blocks, all ranks together; None for unknown.

    kv_usage: the share in use, read at the time of the newest steps, 0..1.
    """
    if not steps or kv_usage is None or not 0 <= kv_usage < 1:
        return None
    newest = {step.rank: step.kv_free_blocks for step in steps}
    free = [blocks for blocks in newest.values() if blocks is not None]
    return sum(free) / (1 - kv_usage) if len(free) == len(newest) and any(free) else None


def _emitted(step: Step) -> int:
    return step.output_tokens if step.output_tokens is not None else step.decode_tokens
