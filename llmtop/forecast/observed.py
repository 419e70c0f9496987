"""Estimates the present load of an engine, and the requests in it, from its steps and requests."""

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
SAME_MEAN = 0.15  # relative difference below which two means are taken as equal
LEAST_TURNS = 2.0  # requests per stream, needed to recognise a closed loop
CLOSED_LOOP = 0.05  # variance over mean of the requests in flight; 1 for random arrivals
LENGTH_FACTORS = (0.4, 0.7, 0.9, 1.0, 1.1, 1.3, 1.6)
"""Assumed lengths of answers relative to their mean, if only the mean is known."""


class Observed(Struct, frozen=True):
    """The load in the last ``seconds``. arrivals: accepted requests.

    refused_per_s: requests that were refused at the queue limit, per second.
    """

    load: Load
    seconds: float
    arrivals: int
    refused_per_s: float


def observed(
    steps: Sequence[Step], table: RequestTable | None, streams: float | None = None
) -> Observed:
    """Estimate the present load.

    streams: those of a known closed loop; None: the steps show whether it is one. Raises NotFitted
    for too few requests.
    """
    if not steps:
        raise NotFitted("no step was seen", "send some load, then ask again")
    seconds = max(step.end for step in steps) - min(step.end - step.duration_s for step in steps)
    prefilled = sum(_first_tokens(step) for step in steps)
    # A preempted request is prefilled again, without another first token.
    firsts = prefilled - sum(step.preempted or 0 for step in steps)
    if firsts < LEAST_REQUESTS or seconds <= 0:
        raise NotFitted(
            f"only {firsts} requests were seen, {LEAST_REQUESTS} are needed",
            "let the engine answer some requests, or describe the load with --rate or --streams",
        )
    first, last = _edges(steps)
    arrived = firsts + last.waiting - first.waiting
    refused = sum(step.refused or 0 for step in steps)
    ended = max(1, firsts - (last.running - first.running))
    computed = sum(step.prefill_tokens for step in steps)
    cached = sum(step.cached_tokens or 0 for step in steps)
    outputs = sum(step.output_tokens or step.decode_tokens for step in steps)
    rows = table.rows if table is not None else ()
    mean = (computed + cached) / prefilled
    prompt = _prompts(rows, mean)
    mean_output = _mean_answer(steps, outputs, ended, mean)
    if ended < LEAST_REQUESTS:
        raise NotFitted(
            f"only {ended} answers have ended, {LEAST_REQUESTS} are needed to know their length",
            "wait until some answers have ended, or describe the load with --rate or --streams",
        )
    output = _outputs(rows, mean_output)
    share = cached / (computed + cached) if computed + cached else 0.0
    if streams is None and not refused:
        streams = closed_loop_streams(steps, arrived)
    if streams is not None:
        load = Load("closed", streams, prompt, output, share)
    else:
        rate = max(0.01, (arrived + refused) / seconds)
        load = Load("open", rate, prompt, output, share, arrived + refused)
    return Observed(load, seconds, arrived, refused / seconds)


def closed_loop_streams(steps: Sequence[Step], arrived: int) -> int | None:
    """The number of requests in flight if it hardly varies, as in a closed loop of any client.

    arrived: arrived requests. None: it varies, or too few requests arrived. With random arrivals
    (Poisson), the variance of the number in flight equals its mean.
    """
    newest: dict[int, int] = {}
    in_flight = []
    for step in sorted(steps, key=lambda step: step.end):
        newest[step.rank] = step.running + step.waiting
        in_flight.append(sum(newest.values()))
    in_flight = in_flight[len(newest) :] or in_flight
    mean = fmean(in_flight)
    varies = pvariance(in_flight, mean) > CLOSED_LOOP * mean
    if mean <= 0 or arrived < LEAST_TURNS * mean or varies:
        return None
    return sorted(in_flight)[int(0.95 * len(in_flight))]


def _first_tokens(step: Step) -> int:
    """The number of requests that got their first token in a step.

    A decoding request computes one token and its drafts. It emits one token and the accepted
    drafts. All other tokens that a step emits are first tokens.
    """
    drafted = step.draft_tokens or 0
    accepted = step.accepted_tokens if drafted else 0
    if step.output_tokens is None or accepted is None:
        return min(step.prefills or 0, 1) if step.prefill_tokens else 0
    found = max(0, step.output_tokens - accepted - (step.decode_tokens - drafted))
    return min(found, step.prefills or 0) if drafted else found


def _mean_answer(steps: Sequence[Step], outputs: int, ended: int, prompt: float) -> float:
    """The mean length of an answer in tokens. prompt: mean length of a prompt.

    Tokens of unfinished answers must not count: in a growing batch they are a quarter of all. If
    the context is known, they are its tokens without the prompts. Otherwise each unfinished answer
    is assumed to be half done.
    """
    growth = _unfinished_growth(steps, prompt)
    if growth is not None:
        return max(1.0, (outputs - growth) / ended)
    first, last = _edges(steps)
    return max(1.0, outputs / max(1.0, ended + (last.running - first.running) / 2))


def _unfinished_growth(steps: Sequence[Step], prompt: float) -> float | None:
    """Tokens of unfinished answers at the end minus those at the begin; None: not known."""
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
    """Batch and queue in the first and in the last step, summed over ranks."""
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
    if len(found) >= LEAST_REQUESTS and abs(fmean(found) / max(mean, 1.0) - 1.0) < 2 * SAME_MEAN:
        return _scaled(found, mean)
    return Lengths((max(1, round(mean)),))


def _outputs(rows: Sequence[RequestRow], mean: float) -> Lengths:
    asked = [row.max_tokens for row in rows if row.max_tokens]
    if len(asked) >= LEAST_REQUESTS and abs(fmean(asked) / mean - 1.0) < SAME_MEAN:
        return _scaled(asked, mean)
    return Lengths(tuple(max(1, round(mean * factor)) for factor in LENGTH_FACTORS))


def _scaled(found: Sequence[int], mean: float) -> Lengths:
    """The lengths of the listed requests, scaled to the mean of all.

    The table lists only some tens of requests, and long ones are in it more often.
    """
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
    """The requests in one of the ranks now.

    running, waiting: numbers of all ranks. Requests that are not in the table are drawn from
    ``load``.
    """
    rng = random.Random(seed)
    rows = table.rows if table is not None else ()
    known = [_present_request(row, load, rng) for row in rows]
    in_batch = [one for row, one in zip(rows, known, strict=True) if row.state == "running"]
    queued = [one for row, one in zip(rows, known, strict=True) if row.state != "running"]
    return Present(
        tuple(_filled(in_batch, running, ranks, load, rng, started=True)),
        tuple(_filled(queued, waiting, ranks, load, rng, started=False)),
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


def _present_request(row: RequestRow, load: Load, rng: random.Random) -> PresentRequest:
    generated = row.generated_tokens or 0
    target = load.output.draw(rng)
    if row.max_tokens:
        target = min(target, row.max_tokens)
    if target <= generated:
        target = min(row.max_tokens or generated + 16, generated + max(1, generated // 4))
    return PresentRequest(
        row.prompt_tokens or load.prompt.draw(rng), generated, target, row.age_s or 0.0
    )
