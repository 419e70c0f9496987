"""The requests inside an engine: lengths and times, never contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

RequestState = Literal["running", "waiting", "preempted"]
RequestSort = Literal["age", "kv", "tokens", "wait"]


class RequestRow(Struct, frozen=True):
    """One unfinished request. Units: seconds, tokens, KV blocks; None: unknown.

    id: the one that the client received. age_s: since arrival. waited_s: in the queue until its
    first admission, or until now. ttft_s: None before the first token. max_tokens: the limit of
    generated tokens.
    """

    id: str
    rank: int
    state: RequestState
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


class RequestTable(Struct, frozen=True):
    """The requests of all ranks at one moment, sorted, the first rows only.

    running, waiting: total numbers, not only the rows. step: the last step before the reading; None
    if unknown or with several ranks. missing: what cannot be shown, with reasons.
    waiting_looked_at: how many queued requests were considered for the rows; None: all.
    """

    time: float
    running: int
    waiting: int
    rows: tuple[RequestRow, ...]
    step: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    waiting_looked_at: int | None = None


class Aborted(Struct, frozen=True):
    """The result of an abort for each id, with a reason for each refused one."""

    aborted: tuple[str, ...]
    ended_before: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
