"""The outcome of an option change as text, over all data-parallel ranks. Pure."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.engines.core.options import Change, Option, OptionValue, Outcome, RankValue
from llmtop.engines.tuning.rank_merge import difference_words, rank_words

SIDE_BY_SIDE = 3  # ranks whose values are all shown


def outcome_words(change: Change) -> str:
    """``applied``, or ``applied on 2 of 2 ranks`` for an engine with several ranks.

    Ranks that apply the change at their next step are named. ``Change.reason`` says why a rank did
    not apply it.
    """
    ranks = change.ranks
    if not ranks:
        return change.outcome.value
    if len(ranks) == 1:  # an entry in the history of one rank, which does not know the others
        return f"{change.outcome.value} on {rank_words([ranks[0].rank])}"
    applied = [one.rank for one in ranks if one.outcome is Outcome.APPLIED]
    pending = [one.rank for one in ranks if one.outcome is Outcome.PENDING]
    if not applied and not pending:
        return f"{change.outcome.value} on {len(ranks)} of {len(ranks)} ranks"
    parts = []
    if applied:
        parts.append(f"applied on {len(applied)} of {len(ranks)} ranks")
    if pending and applied:
        parts.append(f"pending on {rank_words(pending)} until the next step there")
    elif pending:
        parts.append(f"pending on {len(pending)} of {len(ranks)} ranks")
    return ", ".join(parts)


def evicted_words(change: Change) -> str:
    """How many requests were put back into the queue; "" for none.

    For example ``175 requests put back into the queue (92 on rank 0, 83 on rank 1)``.
    """
    if not change.evicted:
        return ""
    words = f"{change.evicted:,} requests put back into the queue"
    if len(change.ranks) > 1:
        each = [f"{one.evicted:,} on rank {one.rank}" for one in change.ranks]
        words += f" ({', '.join(each)})"
    return words


def before_words(change: Change) -> str:
    """The old values if ranks differed, ``16 on rank 0, 99 on rank 1``; otherwise ""."""
    return difference_words([RankValue(one.rank, one.before) for one in change.ranks])


def in_force(option: Option, text: Callable[[OptionValue], str]) -> str:
    """An option's value. text: formats one value.

    If data-parallel ranks differ, the value of each rank: ``16/99``. For more than three ranks, the
    lowest and the highest: ``16..99``.
    """
    values = [one.value for one in option.ranks]
    if len(set(values)) < 2:
        return text(option.value)
    if len(values) <= SIDE_BY_SIDE:
        return "/".join(map(text, values))
    known = [value for value in values if isinstance(value, int)]
    return f"{text(min(known))}..{text(max(known))}" if known else text(None)
