"""The requests inside an engine: their lengths and times, never their contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

RequestState = Literal["running", "waiting", "preempted"]
RequestSort = Literal["age", "kv", "tokens", "wait"]


class RequestRow(Struct, frozen=True):
    """One request that is not finished. Seconds, tokens, KV blocks; None: unknown.

    id: as the client knows it. age_s: since it arrived. waited_s: in the queue until its first
    admission, or until now. ttft_s: None before the first token. max_tokens: the most that it may
    generate.
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
    """The requests of all ranks at one moment, sorted and cut.

    running, waiting: all of them, not only the rows. step: the last step before the look; None
    where unknown or where there are several ranks. missing: what cannot be shown, with reasons.
    waiting_looked_at: how many of the queue were considered for the rows; None: all.
    """

    time: float
    running: int
    waiting: int
    rows: tuple[RequestRow, ...]
    step: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    waiting_looked_at: int | None = None


class Aborted(Struct, frozen=True):
    """What an abort did to each id: the refused ones with the reason."""

    aborted: tuple[str, ...]
    ended_before: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
