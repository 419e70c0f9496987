"""The outcome of an option change in words, over all data-parallel ranks. Pure."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.engines.core.options import Change, Option, OptionValue, Outcome, RankValue
from llmtop.engines.tuning.rank_merge import difference_words, rank_words

SIDE_BY_SIDE = 3


def outcome_words(change: Change) -> str:
    """``applied``; of an engine with several ranks ``applied on 2 of 2 ranks``.

    A rank that takes the change at its next step is named. Why a rank did not take it is in
    ``Change.reason``.
    """
    ranks = change.ranks
    if not ranks:
        return change.outcome.value
    if len(ranks) == 1:  # all that is known of it: an entry of one rank's history
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
    """How many requests were put back, ``175 requests put back into the queue (92 on rank 0, 83 on
    rank 1)``; "" for none."""
    if not change.evicted:
        return ""
    words = f"{change.evicted:,} requests put back into the queue"
    if len(change.ranks) > 1:
        each = [f"{one.evicted:,} on rank {one.rank}" for one in change.ranks]
        words += f" ({', '.join(each)})"
    return words


def before_words(change: Change) -> str:
    """What it was before where the ranks differed, ``16 on rank 0, 99 on rank 1``; "" as a rule."""
    return difference_words([RankValue(one.rank, one.before) for one in change.ranks])


def in_force(option: Option, shown: Callable[[OptionValue], str]) -> str:
    """An option's value; where data-parallel ranks differ that of each, ``16/99``, of more than
    three the lowest and the highest. shown: one value as text."""
    values = [one.value for one in option.ranks]
    if len(set(values)) < 2:
        return shown(option.value)
    if len(values) <= SIDE_BY_SIDE:
        return "/".join(map(shown, values))
    known = [value for value in values if isinstance(value, int)]
    return f"{shown(min(known))}..{shown(max(known))}" if known else shown(None)
