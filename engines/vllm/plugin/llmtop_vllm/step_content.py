"""The content of one step, from the plan (``SchedulerOutput``) that ``schedule()`` returns.

A step can have hundreds of requests. So the code uses C loops (``sum``, ``max``, ``in``) where
possible, and a Python loop over the requests only if the step has prompts.
"""

from __future__ import annotations

from typing import Any

from llmtop_live.step_ring import UNKNOWN


class StepContent:
    """One planned step.

    requests: the number of its requests. prefills: requests that compute prompt tokens, or
    recompute tokens after a preemption. context_tokens: the sum of the requests' lengths after this
    step. cached_tokens: prompt tokens from the prefix cache. schedule_s, launch_s: set by the
    recorder.
    """

    __slots__ = (
        "cached_tokens",
        "context_tokens",
        "launch_s",
        "plan",
        "preempted",
        "prefill_tokens",
        "prefills",
        "requests",
        "schedule_s",
        "tokens",
    )

    def __init__(self, plan: Any, most_decode: int) -> None:
        """most_decode: maximum number of tokens of a decoding request, drafts included."""
        tokens = plan.num_scheduled_tokens
        cached, new = plan.scheduled_cached_reqs, plan.scheduled_new_reqs
        self.plan = plan
        self.requests = len(tokens)
        self.tokens: int = plan.total_num_scheduled_tokens
        self.schedule_s = 0.0
        self.launch_s: float | None = None
        reused = sum(request.num_computed_tokens for request in new)
        self.cached_tokens: int = reused
        self.context_tokens: int = self.tokens + reused + sum(cached.num_computed_tokens)
        preempted = getattr(plan, "preempted_req_ids", None)
        self.preempted: float = UNKNOWN if preempted is None else len(preempted)
        self.prefills, self.prefill_tokens = _prefills(tokens, cached, new, most_decode)


def _prefills(tokens: dict[str, int], cached: Any, new: Any, most_decode: int) -> tuple[int, int]:
    """The number of requests that prefill, and of their tokens in this step."""
    output_tokens, resumed = cached.num_output_tokens, cached.resumed_req_ids
    only_decodes = not new and not resumed and 0 not in output_tokens
    if only_decodes and (not tokens or max(tokens.values()) <= most_decode):
        return 0, 0
    count = total = 0
    for request in new:
        count += 1
        total += tokens[request.req_id]
    for ident, outputs in zip(cached.req_ids, output_tokens, strict=False):
        scheduled = tokens[ident]
        if outputs == 0 or scheduled > most_decode or ident in resumed:
            count += 1
            total += scheduled
    return count, total
