"""The JSON documents of ``why``, ``steps``, ``requests`` and ``abort``, and their schemas.

null means unknown, never zero. docs/reference/json.md describes the fields.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llmtop.diagnosis.causes import CauseFound, Explanation, Knob
from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.requests import Aborted, RequestTable
from llmtop.engines.core.steps import StepMeans, Steps


class StepEntry(msgspec.Struct, frozen=True):
    """One step; see ``engines.core.steps.Step``."""

    seq: int
    rank: int
    end: float
    duration_s: float
    requests: int
    prefills: int | None
    prefill_tokens: int
    decode_tokens: int
    output_tokens: int | None
    draft_tokens: int | None
    accepted_tokens: int | None
    cached_tokens: int | None
    running: int
    waiting: int
    kv_free_blocks: int | None
    preempted: int | None
    refused: int | None
    context_tokens: int | None
    schedule_s: float | None
    update_s: float | None
    launch_s: float | None
    host_gap_s: float | None
    idle_s: float | None


class MeansEntry(msgspec.Struct, frozen=True):
    """Mean decode step over a window, for an engine that reports no single steps.

    See ``engines.core.steps.StepMeans``.
    """

    window_s: float
    steps: int
    mean_s: float | None
    mean_requests: float | None
    base_s: float | None
    per_request_s: float | None
    tokens: int
    prefill_tokens: int
    prefill_s: float


class StepsDocument(msgspec.Struct, frozen=True):
    """The last steps of an engine, oldest first. lost: number of steps missing between them.

    means: null unless only means are known.
    """

    name: str
    ranks: int
    lost: int
    steps: list[StepEntry]
    missing: dict[str, str]
    means: MeansEntry | None


class RequestEntry(msgspec.Struct, frozen=True):
    """One request that is not finished; see ``engines.core.requests.RequestRow``."""

    id: str
    rank: int
    state: Literal["running", "waiting", "preempted"]
    phase: Literal["prefill", "decode"] | None
    age_s: float | None
    waited_s: float | None
    ttft_s: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    generated_tokens: int | None
    max_tokens: int | None
    kv_blocks: int | None
    preemptions: int | None
    priority: int | None


class RequestsDocument(msgspec.Struct, frozen=True):
    """The requests inside an engine. running, waiting: counts of all, not only of those listed."""

    name: str
    time: float
    running: int
    waiting: int
    requests: list[RequestEntry]
    waiting_looked_at: int | None
    missing: dict[str, str]


class Refusal(msgspec.Struct, frozen=True):
    """A request that could not be aborted, and why."""

    id: str
    reason: str


class AbortDocument(msgspec.Struct, frozen=True):
    """What an abort did to each id. ended_before: no unfinished request has this id."""

    name: str
    aborted: list[str]
    ended_before: list[str]
    refused: list[Refusal]


Named = Literal[
    "none", "batch_limit", "kv_cache", "prefill", "token_budget", "decode", "host", "front_end",
    "speculation", "gpu_throttled", "client", "long_requests", "hung", "unknown",
]  # fmt: skip


class KnobEntry(msgspec.Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """An option that would reduce a cause. expected: measures by name, under the current load.

    basis: whether they are a forecast or an estimate; if there are none, why.
    """

    option: str
    before: int | float | bool | str | None
    after: int | float | bool | str | None
    applies: str
    expected: dict[str, float]
    basis: str | None


class CauseEntry(msgspec.Struct, frozen=True):
    """One cause. share: its part of the time of requests, 0..1."""

    cause: Named
    share: float | None
    words: str
    evidence: dict[str, int | float | bool | str | None]
    knob: KnobEntry | None
    advice: str | None


class WhyDocument(msgspec.Struct, frozen=True):
    """What limits an engine. causes: at least one, the largest first.

    steps: number of steps that the shares are computed from.
    """

    name: str
    simulated: bool
    time: float
    window_s: float
    steps: int
    state: Literal["headroom", "near_knee", "saturated", "overloaded", "hung"] | None
    reasons: list[str]
    causes: list[CauseEntry]
    missing: dict[str, str]


DOCUMENTS: dict[str, tuple[type[msgspec.Struct], str]] = {
    "steps": (StepsDocument, "What `llmtop steps --json` prints"),
    "request-table": (RequestsDocument, "What `llmtop requests --json` prints"),
    "abort": (AbortDocument, "What `llmtop abort --json` prints"),
    "why": (WhyDocument, "What `llmtop why --json` prints"),
}


def schema(name: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of one of ``DOCUMENTS``; published in docs/schema."""
    kind, title = DOCUMENTS[name]
    content = msgspec.json.schema(kind)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **content}


def steps_document(name: str, found: Steps) -> dict[str, Any]:
    """The document of ``steps``."""
    entries = [
        StepEntry(**{field: getattr(step, field) for field in StepEntry.__struct_fields__})
        for step in found.steps
    ]
    document = StepsDocument(name, found.ranks, found.lost, entries, dict(found.missing), None)
    return msgspec.to_builtins(document)  # type: ignore[no-any-return]


def means_document(name: str, found: StepMeans, why: str) -> dict[str, Any]:
    """The document of ``steps`` when single steps are not available. why: the reason."""
    values = {field: getattr(found, field) for field in MeansEntry.__struct_fields__}
    document = StepsDocument(name, found.ranks, 0, [], {"steps": why}, MeansEntry(**values))
    return msgspec.to_builtins(document)  # type: ignore[no-any-return]


def requests_document(name: str, found: RequestTable) -> dict[str, Any]:
    """The document of ``requests``."""
    entries = [
        RequestEntry(**{field: getattr(row, field) for field in RequestEntry.__struct_fields__})
        for row in found.rows
    ]
    document = RequestsDocument(
        name,
        found.time,
        found.running,
        found.waiting,
        entries,
        found.waiting_looked_at,
        dict(found.missing),
    )
    return msgspec.to_builtins(document)  # type: ignore[no-any-return]


def abort_document(name: str, done: Aborted) -> dict[str, Any]:
    """The document of ``abort``."""
    refused = [Refusal(ident, reason) for ident, reason in done.refused]
    document = AbortDocument(name, list(done.aborted), list(done.ended_before), refused)
    return msgspec.to_builtins(document)  # type: ignore[no-any-return]


def why_document(name: str, simulated: bool, found: Explanation) -> dict[str, Any]:
    """The document of ``why``."""
    state = None if found.level is Level.UNKNOWN else found.level.name.lower()
    document = WhyDocument(
        name, simulated, found.time, round(found.window_s, 3), found.steps,
        state,  # type: ignore[arg-type]
        list(found.reasons), [_cause(one) for one in found.causes], dict(found.missing),
    )  # fmt: skip
    return msgspec.to_builtins(document)  # type: ignore[no-any-return]


def _cause(found: CauseFound) -> CauseEntry:
    evidence = dict(found.evidence)
    return CauseEntry(
        found.cause.value, found.share, found.words, evidence, _knob(found.knob),
        found.advice or None,
    )  # fmt: skip


def _knob(knob: Knob | None) -> KnobEntry | None:
    if knob is None:
        return None
    return KnobEntry(
        knob.option, knob.before, knob.after, knob.applies.value, dict(knob.expected),
        knob.basis or None,
    )  # fmt: skip
