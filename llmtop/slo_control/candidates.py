"""The candidates of ``tune``.

A forecast selects some from a grid. Others have options whose effect no forecast predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SCREENED = 4  # candidates that a forecast selects
QUEUES = (8, 16, 32, 64)  # queue limits, requests
BATCH_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)  # of the operator's batch limit
BUDGETS = (8192, 4096, 2048, 1024)  # tokens in a step
LEAST_CHUNK = 256  # prompt tokens in a step: smaller chunks need too many steps

Settings = Mapping[str, int]
"""Values by role: ``batch_limit``, ``queue_limit`` (0: no limit), ``token_budget``,
``draft_tokens``, ``prefill_threshold``."""


def grid(own: Settings, open_roles: Sequence[str]) -> list[Settings]:
    """All combinations of limits below the operator's, without the operator's own settings.

    own: the operator's settings. open_roles: the roles that may change; the others keep their
    value. A lower batch limit alone only moves the wait from the batch to the queue. So the grid
    has both limits, alone and together.
    """
    batches = [own.get("batch_limit", 0)]
    if "batch_limit" in open_roles:
        top = min(own["batch_limit"], 1024)
        batches = sorted({max(8, round(top * share)) for share in BATCH_SHARES} | set(batches))
    queues = [own.get("queue_limit", 0)]
    if "queue_limit" in open_roles:
        queues = sorted({own.get("queue_limit", 0), *QUEUES})
    budgets = [own.get("token_budget", 0)]
    if "token_budget" in open_roles:
        budgets = sorted({b for b in BUDGETS if b <= own["token_budget"]} | set(budgets))
    found: list[Settings] = []
    for batch in batches:
        for queue in queues:
            for budget in budgets:
                one = {"batch_limit": batch, "queue_limit": queue, "token_budget": budget}
                changed = {role: value for role, value in one.items() if role in own}
                if changed != dict(own):
                    found.append(changed)
    return found


def narrowed(
    candidates: Sequence[Settings], expected: Sequence[float | None], most: int = SCREENED
) -> list[Settings]:
    """The ``most`` candidates with the highest expected goodput, in requests per second.

    expected: by candidate, None for no forecast. Among equals the first is chosen, which changes
    least. Settings that differ from a chosen one only in the token budget come last, because they
    usually perform alike. With forecasts for fewer than half of the candidates, every n-th
    one is chosen.
    """
    known = [value for value in expected if value is not None]
    if len(known) < len(expected) / 2 or not known:
        step = max(1, len(candidates) // most)
        return list(candidates)[::step][:most]
    order = sorted(
        range(len(candidates)),
        key=lambda i: -(expected[i] if expected[i] is not None else -1.0),  # type: ignore[operator]
    )
    chosen: list[int] = []
    for different_limits in (True, False):
        for i in order:
            same = any(_limits(candidates[i]) == _limits(candidates[j]) for j in chosen)
            if len(chosen) < most and i not in chosen and not (different_limits and same):
                chosen.append(i)
    return [candidates[i] for i in chosen]


def _limits(settings: Settings) -> tuple[int | None, int | None]:
    return settings.get("batch_limit"), settings.get("queue_limit")


def unforecast_variants(
    best: Settings, own: Settings, most: Settings, prompt: float | None
) -> list[Settings]:
    """``best`` with another draft length or prefill threshold. No forecast predicts their effect.

    own: the operator's settings; a role that is not in them is not changed. most: the highest value
    of each role. prompt: the mean prompt length in tokens, None for unknown. A prefill threshold
    splits only longer prompts.
    """
    found: list[Settings] = []
    if "draft_tokens" in own:
        drafts, top = own["draft_tokens"], most.get("draft_tokens", own["draft_tokens"])
        wanted = [0, drafts // 2] if drafts else [top]
        found += [{**best, "draft_tokens": value} for value in dict.fromkeys(wanted)]
    if "prefill_threshold" in own:
        chunk = max(LEAST_CHUNK, best.get("token_budget", 4 * LEAST_CHUNK) // 4)
        if own["prefill_threshold"]:
            found.append({**best, "prefill_threshold": 0})
        elif prompt is not None and prompt > chunk:
            found.append({**best, "prefill_threshold": chunk})
    return [one for one in found if one != dict(own)]
