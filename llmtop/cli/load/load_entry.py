"""The result of a load as JSON. docs/reference/json.md describes the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmtop.cli.common.output import latency
from llmtop.cli.load.load_target import calibration_entry
from llmtop.loadgen.core.results import LoadResult, Remark
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan
from llmtop.operations.repeats import Repeats

if TYPE_CHECKING:
    from llmtop.loadgen.core.client_capacity import Calibration


def plan_entry(plan: Plan) -> dict[str, Any]:
    """A load over time as JSON. With it and the prompts, ``llmtop check`` repeats the load."""
    return {
        "loop": plan.loop.value,
        "shape": plan.shape,
        "arrival": plan.arrival.value,
        "burstiness": plan.burstiness,
        "seed": plan.seed,
    }


def entry(
    name: str,
    simulated: bool,
    plan: Plan,
    result: LoadResult,
    calibration: Calibration | None = None,
    *,
    repeats: Repeats | None = None,
    run: str = "",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The result of a load as ``load --json`` prints it. run: prefix of its request ids."""
    from llmtop.cli.load.client_report import client_entry
    from llmtop.loadgen.workload.shape import parse
    from llmtop.loadgen.workload.trace import unread

    health = result.health
    spaced = plan.loop is Loop.OPEN and any(
        piece.recorded is None for piece in parse(plan.shape, unread).pieces
    )
    return {
        "name": name,
        "simulated": simulated,
        "loop": plan.loop.value,
        "shape": plan.shape,
        "arrival": plan.arrival.value if spaced else None,
        "burstiness": plan.burstiness if spaced and plan.arrival is Arrival.GAMMA else None,
        "seed": plan.seed,
        "requests": {
            "ok": result.ok,
            "refused": result.refused,
            "failed": result.failed,
            "cut": result.cut,
            "timed_out": result.timed_out,
            "late": result.late,
            "not_sent": result.not_sent,
            "counted": result.counted,
        },
        "unfinished_conversations": result.unfinished,
        "errors": dict(result.errors),
        "remarks": {remark.value: number for remark, number in result.remarks.items()},
        "token_mismatches": {
            "output_above_asked": result.remarks.get(Remark.OUTPUT_ABOVE, 0),
            "output_below_asked": result.remarks.get(Remark.OUTPUT_BELOW, 0),
            "prompt": result.remarks.get(Remark.PROMPT_DIFFERS, 0),
        },
        "duration_s": result.duration_s,
        "prompt_tokens": result.prompt_tokens,
        "cached_tokens": result.cached_tokens,
        "output_tokens": result.output_tokens,
        "output_tokens_per_s": result.output_tokens_per_s,
        "requests_per_s": result.requests_per_s,
        "requests_window_s": result.rate_window_s
        if result.rate_window_s is not None
        else result.duration_s,
        "effective_concurrency": result.concurrency,
        "ttft_s": latency(result.ttft),
        "tpot_s": latency(result.tpot),
        "itl_s": latency(result.itl),
        "tokens_per_chunk": result.tokens_per_chunk,
        "e2e_s": latency(result.e2e),
        "service_ttft_s": latency(result.service_ttft),
        "service_e2e_s": latency(result.service_e2e),
        "oversaturated": result.oversaturated,
        "oversaturated_from_s": result.oversaturated_s,
        "held_to": result.held_to,
        "repeated_prompts": None if repeats is None else repeats_entry(repeats),
        "request_ids": run or None,
        "notes": list(notes),
        "client": {
            **client_entry(health),
            "lateness_s": latency(health.lateness) if health.lateness else None,
        },
        "calibration": calibration_entry(calibration),
    }


def repeats_entry(found: Repeats) -> dict[str, Any]:
    """How often the prompts of a run were sent before, as JSON."""
    return {
        "before_s": found.before_s,
        "prompts": found.prompts,
        "requests": found.requests,
        "times_each": found.times,
        "cached_share": found.cached,
    }
