"""``llmtop steps NAME``: the last steps of an engine's scheduler."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note, table
from llmtop.cli.observe.inside_query import ask_inside
from llmtop.engines.core.steps import StepMeans
from llmtop.operations.inside import ONLY_OURS
from llmtop.values import replace
from llmtop.wording.format import count, latency
from llmtop.wording.steps import means_lines, missing_lines, step_summary

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.steps import Step, Steps
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.engines.metrics.scraper import Fetch
    from llmtop.operations.wiring import Wiring

COLUMNS: dict[str, tuple[str, Callable[[Step], str]]] = {
    "rank": ("RANK", lambda step: str(step.rank)),
    "seq": ("SEQ", lambda step: str(step.seq)),
    "duration_s": ("TOOK", lambda step: latency(step.duration_s)),
    "launch_s": ("LAUNCH", lambda step: latency(step.launch_s)),
    "host_gap_s": ("HOST GAP", lambda step: latency(step.host_gap_s)),
    "idle_s": ("IDLE", lambda step: latency(step.idle_s) if step.idle_s else ""),
    "requests": ("REQUESTS", lambda step: count(step.requests)),
    "prefill_tokens": ("PREFILL", lambda step: count(step.prefill_tokens)),
    "decode_tokens": ("DECODE", lambda step: count(step.decode_tokens)),
    "draft_tokens": ("DRAFTS", lambda step: count(step.draft_tokens)),
    "accepted_tokens": ("ACCEPTED", lambda step: count(step.accepted_tokens)),
    "output_tokens": ("OUT", lambda step: count(step.output_tokens)),
    "running": ("RUNNING", lambda step: count(step.running)),
    "waiting": ("WAITING", lambda step: count(step.waiting)),
    "kv_free_blocks": ("KV FREE", lambda step: count(step.kv_free_blocks)),
    "preempted": ("PREEMPTED", lambda step: count(step.preempted)),
}
OPTIONAL = ("launch_s", "draft_tokens", "accepted_tokens")  # columns shown only with values
SHOWN, IN_JSON, MOST = 20, 200, 4096
# Only one process may read the iterations. A recorder hands them over within HANDOVER_S.
HANDOVER_S, POLL_S = 4.0, 0.25
MEANS_S = 4.0  # window of the means; the engine updates its sums every 15 decode steps


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@click.option(
    "--last",
    type=click.IntRange(1, MOST),
    help=f"Number of steps, the newest ones (default: {SHOWN}, with --json {IN_JSON}).",
)
@click.option("--rank", type=click.IntRange(0), help="Only the steps of this data-parallel rank.")
@json_flag
def command(name: str, last: int | None, rank: int | None, as_json: bool) -> None:
    """Print the last steps of NAME: how long each took, and what it contained.

    For engines that llmtop started, and for any TensorRT-LLM. Only one process can read the
    iterations of a TensorRT-LLM. Of an SGLang server that llmtop did not start (0.5.17 and later)
    it prints the mean decode step over a few seconds.

    Tokens are those of the step: PREFILL of prompts, DECODE of answers (with drafts), OUT sent to
    clients. HOST GAP: time in which requests were pending but the GPU was idle. LAUNCH: time in
    which the launch of the step blocked the engine's thread.
    """
    wanted = last if last is not None else IN_JSON if as_json else SHOWN

    async def ask(inside: EngineInside, who: str) -> Steps | StepMeans:
        return await inside.steps(wanted)

    found = ask_inside(name, ask, _without_socket)
    if isinstance(found, StepMeans):
        _print_means(name, found, as_json)
        return
    if rank is not None and rank >= found.ranks > 0:
        others = (
            "it has only rank 0" if found.ranks == 1 else f"it has ranks 0 to {found.ranks - 1}"
        )
        raise UsageError(f"{name} has no rank {rank}", others)
    steps = [step for step in found.steps if rank is None or step.rank == rank]
    # Each rank sent `wanted` steps: keep those that ended last.
    newest = heapq.nlargest(wanted, range(len(steps)), key=lambda i: (steps[i].end, i))
    found = replace(found, steps=tuple(steps[i] for i in sorted(newest)))
    if as_json:
        document(_document(name, found))
        return
    empty = [name for name in OPTIONAL if not any(getattr(step, name) for step in found.steps)]
    absent = {*empty, *([] if found.ranks > 1 else ["rank"])}
    columns = {name: column for name, column in COLUMNS.items() if name not in absent}
    if found.steps:
        rows = [[cell(step) for _, cell in columns.values()] for step in found.steps]
        table([head for head, _ in columns.values()], rows)
    for line in step_summary(found):
        click.echo(line)
    for line in missing_lines(found.missing, columns):
        note(line)


async def _without_socket(endpoint: Endpoint, wiring: Wiring) -> Steps | StepMeans | None:
    """The steps that an engine without a live socket reports over HTTP; None if it reports none."""
    if endpoint.adapter.make_reader is not None:
        return await _reported(endpoint, wiring)
    return await _means(endpoint, wiring.fetch)


async def _reported(endpoint: Endpoint, wiring: Wiring) -> Steps | None:
    from llmtop.engines.metrics.scraper import open_reader

    reader = open_reader(endpoint.adapter, endpoint.url, wiring.fetch, wiring.state.locks)
    until = time.monotonic() + HANDOVER_S
    try:
        await reader.read()
        while (found := reader.steps) is not None and not found.steps and reader.note:
            if time.monotonic() > until:
                raise LlmtopError(f"{endpoint.name}: no steps: {reader.note}")
            await asyncio.sleep(POLL_S)
            await reader.read()
        return found
    finally:
        await reader.close()


async def _means(endpoint: Endpoint, fetch: Fetch) -> StepMeans | None:
    """The mean step over MEANS_S seconds, from sums; None for an engine that reports no sums."""
    from llmtop.engines.introspection.step_means import between

    sums = endpoint.adapter.step_sums
    if sums is None:
        return None
    url = endpoint.url.rstrip("/") + sums.path
    before = sums.read(await fetch(url))
    await asyncio.sleep(MEANS_S)
    return between(before, sums.read(await fetch(url))) if before else None


def _print_means(name: str, found: StepMeans, as_json: bool) -> None:
    if as_json:
        from llmtop.cli.common.inside_documents import means_document

        document(means_document(name, found, f"single steps are shown {ONLY_OURS}"))
        return
    for line in means_lines(found):
        click.echo(line)
    note(f"single steps are shown {ONLY_OURS}")


def _document(name: str, found: Steps) -> dict[str, object]:
    from llmtop.cli.common.inside_documents import steps_document

    return steps_document(name, found)
