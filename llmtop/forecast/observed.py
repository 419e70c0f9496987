"""The present load and the present state of an engine, from its own steps and requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean, pvariance

from msgspec import Struct

from llmtop.engines.core.requests import RequestRow, RequestTable
from llmtop.engines.core.steps import Step
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.load import Lengths, Load, Present, PresentRequest

LEAST_REQUESTS = 10
SAME = 0.15
TURNS = 2.0  # number of requests per stream
STEADY = 0.05  # variance over the mean; 1 where requests come at random
SPREAD = (0.4, 0.7, 0.9, 1.0, 1.1, 1.3, 1.6)
"""Of answers that end by themselves, around their mean, where only the mean is known."""


class Observed(Struct, frozen=True):
    """What arrives, by the steps of ``seconds``. cached: share of prompt tokens that the prefix
    cache had. refused_per_s: at the queue limit."""

    load: Load
    seconds: float
    arrivals: int
    refused_per_s: float


def observed(
    steps: Sequence[Step], table: RequestTable | None, streams: float | None = None
) -> Observed:
    """The load as it is. streams: it is a closed loop of so many; None: the steps show whether it
    is one. NotFitted when too few requests were seen."""
    if not steps:
        raise NotFitted("no step was seen", "send some load, then ask again")
    seconds = max(step.end for step in steps) - min(step.end - step.duration_s for step in steps)
    prefilled = sum(_firsts(step) for step in steps)
    # Who is preempted is prefilled again, and that ends with no first token.
    firsts = prefilled - sum(step.preempted or 0 for step in steps)
    if firsts < LEAST_REQUESTS or seconds <= 0:
        raise NotFitted(
            f"only {firsts} requests were seen, {LEAST_REQUESTS} are needed",
            "let the engine answer some requests, or describe the load with --rate or --streams",
        )
    first, last = _edges(steps)
    came = firsts + last.waiting - first.waiting
    refused = sum(step.refused or 0 for step in steps)
    ended = max(1, firsts - (last.running - first.running))
    computed = sum(step.prefill_tokens for step in steps)
    cached = sum(step.cached_tokens or 0 for step in steps)
    outputs = sum(step.output_tokens or step.decode_tokens for step in steps)
    rows = table.rows if table is not None else ()
    mean = (computed + cached) / prefilled
    prompt = _prompts(rows, mean)
    answered = _answered(steps, outputs, ended, mean)
    if ended < LEAST_REQUESTS:
        raise NotFitted(
            f"only {ended} answers have ended, {LEAST_REQUESTS} are needed to know their length",
            "wait until some answers have ended, or describe the load with --rate or --streams",
        )
    output = _outputs(rows, answered)
    share = cached / (computed + cached) if computed + cached else 0.0
    if streams is None and not refused:
        streams = constant(steps, came)
    if streams is not None:
        load = Load("closed", streams, prompt, output, share)
    else:
        rate = max(0.01, (came + refused) / seconds)
        load = Load("open", rate, prompt, output, share, came + refused)
    return Observed(load, seconds, came, refused / seconds)


def constant(steps: Sequence[Step], came: int) -> int | None:
    """How many requests are in flight where that hardly varies: it is a closed loop, whichever
    client sends it. None: it varies, or too few requests came to tell.

    Of requests that come at random the number in flight varies by its square root.
    """
    newest: dict[int, int] = {}
    flying = []
    for step in sorted(steps, key=lambda step: step.end):
        newest[step.rank] = step.running + step.waiting
        flying.append(sum(newest.values()))
    flying = flying[len(newest) :] or flying
    middle = fmean(flying)
    if middle <= 0 or came < TURNS * middle or pvariance(flying, middle) > STEADY * middle:
        return None
    return sorted(flying)[int(0.95 * len(flying))]


def _firsts(step: Step) -> int:
    """Requests that got their first token in a step.

    A request that decodes computes one token and its drafts, and emits one and the accepted ones.
    What a step emits beyond that are first tokens.
    """
    drafted = step.draft_tokens or 0
    accepted = step.accepted_tokens if drafted else 0
    if step.output_tokens is None or accepted is None:
        return min(step.prefills or 0, 1) if step.prefill_tokens else 0
    found = max(0, step.output_tokens - accepted - (step.decode_tokens - drafted))
    return min(found, step.prefills or 0) if drafted else found


def _answered(steps: Sequence[Step], outputs: int, ended: int, prompt: float) -> float:
    """The mean length of an answer.

    Tokens of answers that have not ended are not part of any that has. In a growing batch they are
    a quarter of all. Where the context is known, they are what it holds beyond the prompts. Else
    each answer is taken to be half done.
    """
    grown = _in_flight_grown(steps, prompt)
    if grown is not None:
        return max(1.0, (outputs - grown) / ended)
    first, last = _edges(steps)
    return max(1.0, outputs / max(1.0, ended + (last.running - first.running) / 2))


def _in_flight_grown(steps: Sequence[Step], prompt: float) -> float | None:
    """Tokens of answers in the batch at the end, less those at the begin; None: not known."""
    firsts: dict[int, Step] = {}
    lasts: dict[int, Step] = {}
    for step in steps:
        if step.context_tokens is None or step.draft_tokens:
            return None
        firsts.setdefault(step.rank, step)
        lasts[step.rank] = step
    return sum(
        (last.context_tokens or 0)
        - (firsts[rank].context_tokens or 0)
        - prompt * (last.requests - firsts[rank].requests)
        for rank, last in lasts.items()
    )


class _Edge(Struct, frozen=True):
    running: int
    waiting: int


def _edges(steps: Sequence[Step]) -> tuple[_Edge, _Edge]:
    """The batch and the queue at the begin and at the end, all ranks together."""
    firsts: dict[int, Step] = {}
    lasts: dict[int, Step] = {}
    for step in steps:
        firsts.setdefault(step.rank, step)
        lasts[step.rank] = step
    first, last = (
        _Edge(sum(s.running for s in found.values()), sum(s.waiting for s in found.values()))
        for found in (firsts, lasts)
    )
    return first, last


def _prompts(rows: Sequence[RequestRow], mean: float) -> Lengths:
    found = [row.prompt_tokens for row in rows if row.prompt_tokens]
    if len(found) >= LEAST_REQUESTS and abs(fmean(found) / max(mean, 1.0) - 1.0) < 2 * SAME:
        return _scaled(found, mean)
    return Lengths((max(1, round(mean)),))


def _outputs(rows: Sequence[RequestRow], mean: float) -> Lengths:
    asked = [row.max_tokens for row in rows if row.max_tokens]
    if len(asked) >= LEAST_REQUESTS and abs(fmean(asked) / mean - 1.0) < SAME:
        return _scaled(asked, mean)
    return Lengths(tuple(max(1, round(mean * factor)) for factor in SPREAD))


def _scaled(found: Sequence[int], mean: float) -> Lengths:
    """The spread of the requests that are listed, around the mean of all: only some tens
    are listed, and those longest there are more often long."""
    factor = mean / fmean(found)
    return Lengths(tuple(max(1, round(length * factor)) for length in found))


def present(
    running: int,
    waiting: int,
    table: RequestTable | None,
    load: Load,
    ranks: int,
    seed: int = 0,
) -> Present:
    """What one of the ranks holds now. Requests beyond the rows of the table are like them."""
    rng = random.Random(seed)
    rows = table.rows if table is not None else ()
    known = [_held(row, load, rng) for row in rows]
    runs = [one for row, one in zip(rows, known, strict=True) if row.state == "running"]
    waits = [one for row, one in zip(rows, known, strict=True) if row.state != "running"]
    return Present(
        tuple(_filled(runs, running, ranks, load, rng, started=True)),
        tuple(_filled(waits, waiting, ranks, load, rng, started=False)),
    )


def _filled(
    known: list[PresentRequest],
    count: int,
    ranks: int,
    load: Load,
    rng: random.Random,
    *,
    started: bool,
) -> list[PresentRequest]:
    wanted = round(count / max(1, ranks))
    found = sorted(known[:wanted], key=lambda one: -one.waited_s)
    while len(found) < wanted:
        prompt, target = load.prompt.draw(rng), load.output.draw(rng)
        generated = 1 + int(rng.random() * max(1, target - 1)) if started else 0
        found.append(PresentRequest(prompt, min(generated, target - 1), target))
    return found


def _held(row: RequestRow, load: Load, rng: random.Random) -> PresentRequest:
    generated = row.generated_tokens or 0
    target = load.output.draw(rng)
    if row.max_tokens:
        target = min(target, row.max_tokens)
    if target <= generated:
        target = min(row.max_tokens or generated + 16, generated + max(1, generated // 4))
    return PresentRequest(
        row.prompt_tokens or load.prompt.draw(rng), generated, target, row.age_s or 0.0
    )
