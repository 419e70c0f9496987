"""The candidates of ``tune``: a grid that a forecast narrows, and what only a measurement shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SCREENED = 4
QUEUES = (8, 16, 32, 64)
BATCH_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
BUDGETS = (8192, 4096, 2048, 1024)
LEAST_PIECE = 256  # prompt tokens of a step: smaller pieces cost more steps than they save

Settings = Mapping[str, int]


def grid(own: Settings, open_roles: Sequence[str]) -> list[Settings]:
    """Candidates around the operator's settings, with those of their roles that may change.

    A batch limit without a queue limit moves the wait from the batch into the queue, so both are
    tried together as well as alone.
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
    """The most promising of a grid by their expected goodput; among equals the first, which change
    least. Without a forecast: settings at equal distances in the grid. Settings that differ only in
    the token budget come last, because they usually perform alike."""
    known = [value for value in expected if value is not None]
    if len(known) < len(expected) / 2 or not known:
        step = max(1, len(candidates) // most)
        return list(candidates)[::step][:most]
    order = sorted(
        range(len(candidates)),
        key=lambda i: -(expected[i] if expected[i] is not None else -1.0),  # type: ignore[operator]
    )
    chosen: list[int] = []
    for unlike in (True, False):
        for i in order:
            alike = any(_limits(candidates[i]) == _limits(candidates[j]) for j in chosen)
            if len(chosen) < most and i not in chosen and not (unlike and alike):
                chosen.append(i)
    return [candidates[i] for i in chosen]


def _limits(settings: Settings) -> tuple[int | None, int | None]:
    return settings.get("batch_limit"), settings.get("queue_limit")


def beside(best: Settings, own: Settings, most: Settings, prompt: float | None) -> list[Settings]:
    """``best`` with another draft length or prefill threshold, which no forecast knows.

    most: the highest value of each role. prompt: the mean length of prompts; only longer ones than
    the threshold are cut.
    """
    found: list[Settings] = []
    if "draft_tokens" in own:
        drafts, top = own["draft_tokens"], most.get("draft_tokens", own["draft_tokens"])
        wanted = [0, drafts // 2] if drafts else [top]
        found += [{**best, "draft_tokens": value} for value in dict.fromkeys(wanted)]
    if "prefill_threshold" in own:
        piece = max(LEAST_PIECE, best.get("token_budget", 4 * LEAST_PIECE) // 4)
        if own["prefill_threshold"]:
            found.append({**best, "prefill_threshold": 0})
        elif prompt is not None and prompt > piece:
            found.append({**best, "prefill_threshold": piece})
    return [one for one in found if one != dict(own)]
