"""Combines the answers of all ranks and front ends.

Answers are stored by the name of their process ("rank 0", "front end 1"); a LiveError means that it
did not answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from llmtop.engines.core.latencies import NAMES, Latencies, LatencyHistogram
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.core.requests import Aborted, RequestRow, RequestSort, RequestTable
from llmtop.engines.core.steps import Steps
from llmtop.engines.introspection.answers import ABILITIES, RankLatencies
from llmtop.engines.introspection.errors import nobody
from llmtop.engines.introspection.process_inside import NewSteps

NO_FRONT_END = "no front end of this engine shows internal data"
UNMEASURED = "not measured on each process of this engine"

Answer = TypeVar("Answer")
Answers = Mapping[str, Answer | LiveError]


def answered(answers: Answers[Answer]) -> dict[str, Answer]:
    """The processes that answered."""
    return {name: one for name, one in answers.items() if not isinstance(one, LiveError)}


def require(answers: Answers[Answer]) -> dict[str, Answer]:
    """The processes that answered. Raises LiveError if none did."""
    found = answered(answers)
    if not found:
        raise nobody({name: one for name, one in answers.items() if isinstance(one, LiveError)})
    return found


def silent(answers: Answers[Answer]) -> dict[str, str]:
    """The reasons of the processes that did not answer."""
    return {name: one.message for name, one in answers.items() if isinstance(one, LiveError)}


def _missing(answers: Answers[Answer]) -> dict[str, str]:
    """What the answering processes cannot show, and why the others did not answer.

    Abilities are omitted if another process has them.
    """
    shown = [getattr(one, "missing", {}) for one in answered(answers).values()]
    found = {name: why for one in shown for name, why in one.items() if name not in ABILITIES}
    return {**found, **silent(answers)}


def steps(answers: Answers[NewSteps], time: float) -> Steps:
    """The steps of all ranks ordered by their end. Each rank's own order is kept, even if its clock
    was set back."""
    found = require(answers)
    merged = heapq.merge(*(one.steps for one in found.values()), key=lambda step: step.end)
    return Steps(
        tuple(merged),
        sum(one.lost for one in found.values()),
        len(found),
        _missing(answers),
        time,
        tuple(sorted(one.rank for one in found.values() if one.restarted)),
    )


def latencies(
    ranks: Answers[RankLatencies], fronts: Answers[RankLatencies], time: float
) -> Latencies:
    """The sum over ranks. Latencies that all front ends measure come from them: they are closer to
    the client."""
    at_ranks = require(ranks)
    at_fronts = answered(fronts)
    whole = at_fronts if len(at_fronts) == len(fronts) else {}
    histograms: dict[str, LatencyHistogram] = {}
    base: dict[str, str] = {}
    for source in (at_ranks, whole):
        for name in {name for one in source.values() for name in one.histograms}:
            parts = [one.histograms.get(name) for one in source.values()]
            known = [part for part in parts if part is not None]
            if len(known) < len(source):
                continue  # a part of the engine is not the engine
            total = known[0]
            for part in known[1:]:
                total = total.merge(part)
            histograms[name] = total
            bases = [one.base[name] for one in source.values() if name in one.base]
            if bases:
                base[name] = bases[0]
    missing = _missing_latencies(histograms, ranks, fronts)
    for name in missing:
        histograms.pop(name, None)  # empty because it was not measured
    boots = tuple(one.boot for one in (*at_ranks.values(), *whole.values()))
    return Latencies(histograms, time, len(at_ranks), missing, base, boots)


def _missing_latencies(
    found: Mapping[str, LatencyHistogram],
    ranks: Answers[RankLatencies],
    fronts: Answers[RankLatencies],
) -> dict[str, str]:
    """The latencies that were not measured, with reasons. Front ends' latencies ignore the ranks'
    reasons."""
    at_fronts = {name for one in answered(fronts).values() for name in one.histograms}
    at_ranks = {name: why for name, why in _missing(ranks).items() if name not in at_fronts}
    otherwise = UNMEASURED if answered(fronts) else NO_FRONT_END
    unnamed = dict.fromkeys((name for name in NAMES if name not in found), otherwise)
    missing = {**unnamed, **at_ranks, **_missing(fronts)}
    return {n: why for n, why in missing.items() if n not in found or not found[n].count}


def requests(answers: Answers[RequestTable], sort: RequestSort, limit: int) -> RequestTable:
    """The rows of all ranks, sorted again and cut."""
    found = list(require(answers).values())
    rows = sorted((row for one in found for row in one.rows), key=lambda row: _place(row, sort))
    looked = [one.waiting_looked_at for one in found]
    return RequestTable(
        time=max(one.time for one in found),
        running=sum(one.running for one in found),
        waiting=sum(one.waiting for one in found),
        rows=tuple(rows[:limit]),
        step=found[0].step if len(found) == 1 else None,
        missing=_missing(answers),
        waiting_looked_at=None if None in looked else sum(one or 0 for one in looked),
    )


def _place(row: RequestRow, sort: RequestSort) -> tuple[float, float]:
    age = -(row.age_s if row.age_s is not None else -math.inf)
    if sort == "kv":
        return -(row.kv_blocks or 0), age
    if sort == "tokens":
        return -((row.prompt_tokens or 0) + (row.generated_tokens or 0)), age
    if sort == "wait":
        return 0.0 if row.state != "running" else 1.0, age
    return age, 0.0


def aborted(ids: Sequence[str], answers: Answers[Aborted]) -> Aborted:
    """The result for each id, from the process that had the request."""
    found = answered(answers)
    done = {ident for one in found.values() for ident in one.aborted}
    refused = {ident: why for one in found.values() for ident, why in one.refused}
    for name, why in silent(answers).items():
        for ident in ids:
            refused.setdefault(ident, f"{name} did not answer, and may hold it: {why}")
    refused = {ident: why for ident, why in refused.items() if ident not in done}
    return Aborted(
        tuple(ident for ident in ids if ident in done),
        tuple(ident for ident in ids if ident not in done and ident not in refused),
        tuple(refused.items()),
    )
