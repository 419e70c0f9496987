"""Combines the answers of an engine's data-parallel ranks into one state or outcome. Pure.

Each rank has its own scheduler with its own limits, queue and history. An option's value belongs to
each scheduler, so all get the same value. Counts are summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmtop.engines.core.live_protocol import LiveError, LiveOption, LiveState, RankState
from llmtop.engines.core.options import Change, OptionValue, Outcome, RankChange, RankValue
from llmtop.values import replace

# The same request enters the ranks' histories at different times: a socket thread waits for the
# interpreter lock while its scheduler works.
SAME_REQUEST_S = 5.0
OLD_NOTE = "this data-parallel rank alone, one of"  # from older plugins that know only one rank

RankAnswers = Mapping[int, LiveState | LiveError]


def merged_state(answers: RankAnswers) -> LiveState:
    """One state from the answers by rank. Raises the error of the first rank if none answers.

    The counts exclude ranks that do not answer; ``ranks`` names them.
    """
    found = {rank: answer for rank, answer in answers.items() if isinstance(answer, LiveState)}
    if not found:
        raise no_answer_error(answers)
    if len(answers) == 1:
        return next(iter(found.values()))
    first = next(iter(found.values()))
    names = [name for name in first.options if all(name in s.options for s in found.values())]
    disabled = [state.disabled for state in found.values()]
    return LiveState(
        engine=first.engine,
        version=first.version,
        pid=first.pid,
        options={name: _option(name, answers) for name in names},
        running=_sum([state.running for state in found.values()]),
        waiting=_sum([state.waiting for state in found.values()]),
        evicted_total=sum(state.evicted_total for state in found.values()),
        history=_history(found),
        disabled=disabled[0] if all(disabled) else None,
        ranks=tuple(_rank(rank, answer) for rank, answer in answers.items()),
    )


def merged_change(option: str, to: int, answers: Mapping[int, Change | LiveError]) -> Change:
    """One outcome from those by rank; at least one rank answered."""
    parts = tuple(
        RankChange(rank, answer.before, answer.outcome, answer.reason, answer.evicted)
        if isinstance(answer, Change)
        else RankChange(rank, None, None, answer.message)
        for rank, answer in answers.items()
    )
    made = [answer for answer in answers.values() if isinstance(answer, Change)]
    if len(answers) == 1:
        return made[0]
    # A rank may round the value (SGLang's chunks of prompts); all round in the same way.
    taken = next((one.after for one in made if one.outcome is not Outcome.REFUSED), to)
    return Change(
        option=option,
        before=lowest([one.before for one in made]),
        after=taken,
        outcome=merged_outcome([part.outcome for part in parts]),
        reason=reason_words(parts),
        ack_ms=max((one.ack_ms for one in made if one.ack_ms is not None), default=None),
        evicted=sum(one.evicted for one in made),
        by=made[0].by,
        time=made[0].time,
        ranks=parts,
    )


def merged_outcome(outcomes: Sequence[Outcome | None]) -> Outcome:
    """The outcome for the whole engine; None means a rank without an answer."""
    taken = [one for one in outcomes if one in (Outcome.APPLIED, Outcome.PENDING, Outcome.PARTIAL)]
    if not taken:
        return Outcome.REFUSED
    if len(taken) < len(outcomes) or Outcome.PARTIAL in taken:
        return Outcome.PARTIAL
    return Outcome.PENDING if Outcome.PENDING in taken else Outcome.APPLIED


def reason_words(parts: Sequence[RankChange]) -> str | None:
    """Why some ranks did not apply it, by rank unless all reasons are equal; None if all did.

    ``rank 1 refused: must lie between 1 and 8; rank 2: it does not answer``.
    """
    bad = [part for part in parts if part.outcome in (None, Outcome.REFUSED)]
    if not bad:
        return None
    reasons = {part.reason for part in bad}
    if len(bad) == len(parts) and len(reasons) == 1 and all(part.outcome for part in bad):
        return bad[0].reason
    return "; ".join(
        f"rank {part.rank}{' refused' if part.outcome else ''}: {part.reason or 'no reason given'}"
        for part in bad
    )


def lowest(values: Sequence[OptionValue]) -> OptionValue:
    """The lowest known number, else the first name, else None."""
    known = [value for value in values if isinstance(value, int)]
    return min(known, default=next((value for value in values if isinstance(value, str)), None))


def difference_words(ranks: Sequence[RankValue]) -> str:
    """The values where ranks differ, ``16 on rank 0, 99 on ranks 1 and 2``; "" where they agree."""
    values: dict[OptionValue, list[int]] = {}
    for one in ranks:
        if one.value is not None:
            values.setdefault(one.value, []).append(one.rank)
    if len(values) < 2:
        return ""
    return ", ".join(f"{value} on {rank_words(which)}" for value, which in values.items())


def rank_words(ranks: Sequence[int]) -> str:
    """``rank 1``, ``ranks 0, 2 and 3``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def no_answer_error(answers: Mapping[int, object]) -> LiveError:
    """The error for an engine without an answering rank."""
    errors = {rank: answer for rank, answer in answers.items() if isinstance(answer, LiveError)}
    first = next(iter(errors.values()))
    if len(errors) == 1:
        return first
    if len({error.message for error in errors.values()}) == 1:
        return LiveError(f"{first.message}, on none of {len(errors)} ranks", first.hint)
    words = "; ".join(f"rank {rank}: {error.message}" for rank, error in errors.items())
    return LiveError(f"no rank answers: {words}", first.hint)


def _option(name: str, answers: RankAnswers) -> LiveOption:
    by_rank = {r: s.options[name] for r, s in answers.items() if isinstance(s, LiveState)}
    first = next(iter(by_rank.values()))
    pending = [one.pending for one in by_rank.values() if one.pending is not None]
    notes = [first.note.partition(OLD_NOTE)[0].rstrip("; ")]
    ranks = tuple(
        RankValue(rank, by_rank[rank].value, by_rank[rank].pending)
        if rank in by_rank
        else RankValue(rank, None)
        for rank in answers
    )
    notes.append(f"for each of {len(answers)} data-parallel ranks")
    if differs := difference_words([RankValue(r.rank, first.named(r.value)) for r in ranks]):
        notes.append(f"the ranks differ: {differs}")
    return LiveOption(
        value=min(one.value for one in by_rank.values()),
        launch=first.launch,
        minimum=max(one.minimum for one in by_rank.values()),
        maximum=min(one.maximum for one in by_rank.values()),
        applies=first.applies,
        pending=pending[0] if pending else None,
        note="; ".join(filter(None, notes)),
        ranks=ranks,
        choices=first.choices,
        parts=first.parts,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _rank(rank: int, answer: LiveState | LiveError) -> RankState:
    if isinstance(answer, LiveError):
        return RankState(rank, trouble=answer.message)
    return RankState(rank, answer.pid, answer.running, answer.waiting, answer.disabled)


def _history(found: Mapping[int, LiveState]) -> tuple[Change, ...]:
    """The ranks' histories combined, oldest first. A request to several ranks appears once."""
    entries = sorted(
        ((rank, change) for rank, state in found.items() for change in state.history),
        key=lambda entry: entry[1].time or 0.0,
    )
    groups: list[dict[int, Change]] = []
    for rank, change in entries:
        for group in reversed(groups):
            if rank not in group and _same_request(next(iter(group.values())), change):
                group[rank] = change
                break
        else:
            groups.append({rank: change})
    return tuple(_past(group) for group in groups)


def _same_request(one: Change, other: Change) -> bool:
    near = abs((one.time or 0.0) - (other.time or 0.0)) <= SAME_REQUEST_S
    return near and (one.option, one.after, one.by) == (other.option, other.after, other.by)


def _past(group: Mapping[int, Change]) -> Change:
    first = next(iter(group.values()))  # the earliest, so that the time does not change later
    parts = tuple(
        RankChange(rank, one.before, one.outcome, one.reason, one.evicted)
        for rank, one in sorted(group.items())
    )
    # If a history does not contain it, the rank refused it, was started later, or has not received
    # it yet. So the outcome of that rank is unknown.
    return replace(
        first,
        before=lowest([part.before for part in parts]),
        outcome=merged_outcome([part.outcome for part in parts]),
        evicted=sum(part.evicted for part in parts),
        reason=reason_words(parts),
        ranks=parts,
    )
