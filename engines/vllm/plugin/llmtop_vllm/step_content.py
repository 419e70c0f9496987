"""What one step of vLLM's scheduler holds, out of the plan that ``schedule()`` returns.

A step with hundreds of requests is looked at in C loops (``sum``, ``max``, ``in``) as far as
possible. Only a step with prompts in it is looked at request by request.
"""

from __future__ import annotations

from typing import Any

from llmtop_live.step_ring import UNKNOWN


class StepContent:
    """One planned step. requests: how many are in it. prefills: those with prompt tokens, or with
    tokens that are computed again after a preemption. context_tokens: of all of them, this step's
    included. cached_tokens: prompt tokens that came from the prefix cache."""

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
        """most_decode: tokens of a decoding request at most, drafts included."""
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
    """Requests with prompt tokens, and how many tokens those are."""
    made, resumed = cached.num_output_tokens, cached.resumed_req_ids
    decodes = not new and not resumed and 0 not in made
    if decodes and (not tokens or max(tokens.values()) <= most_decode):
        return 0, 0
    count = total = 0
    for request in new:
        count += 1
        total += tokens[request.req_id]
    for ident, outputs in zip(cached.req_ids, made, strict=False):
        here = tokens[ident]
        if outputs == 0 or here > most_decode or ident in resumed:
            count += 1
            total += here
    return count, total
