"""The steps of an engine's scheduler: what each contained and how it spent its time."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field, structs


class Step(Struct, frozen=True):
    """One step of one scheduler. Units: seconds, tokens, requests, KV blocks; None: unknown.

    seq: its number since the engine started. end: unix seconds. duration_s: since the end of the
    step before, without idle time. requests: in the step. prefills: those that computed prompt
    tokens. prefill_tokens, decode_tokens: computed. output_tokens: emitted.
    running, waiting, kv_free_blocks: at its end. preempted: requests, in this step.
    context_tokens: total context length of its requests. schedule_s, update_s: time of the
    scheduler. launch_s: how long the launch blocked the engine's thread. host_gap_s: the device was
    idle although there was work. idle_s: time without work before this step. cached_tokens: found
    in the prefix cache. refused: requests refused at the queue limit since the step before.
    """

    seq: int
    end: float
    duration_s: float
    requests: int
    prefills: int | None
    prefill_tokens: int
    decode_tokens: int
    output_tokens: int | None
    draft_tokens: int | None
    accepted_tokens: int | None
    running: int
    waiting: int
    kv_free_blocks: int | None
    preempted: int | None
    context_tokens: int | None
    schedule_s: float | None
    update_s: float | None
    launch_s: float | None
    host_gap_s: float | None
    idle_s: float | None
    cached_tokens: int | None
    refused: int | None
    rank: int = 0


_TYPES = {one.name: one.type for one in structs.fields(Step) if one.name != "rank"}
COLUMNS = tuple(_TYPES)
"""The fields of a step, in the order of the protocol (docs/reference/live-socket.md)."""
NEEDED = frozenset(name for name, kind in _TYPES.items() if kind in (int, float))
"""The fields that are never unknown."""
COUNTS = frozenset(name for name, kind in _TYPES.items() if kind in (int, int | None))


class Steps(Struct, frozen=True):
    """The result of one exchange: the new steps of all ranks, ordered by their end.

    lost: steps that were overwritten before they were read. ranks: the number that answered.
    missing: what this engine cannot show, with reasons. time: unix seconds of the exchange.
    restarted_ranks: those that restarted since the exchange before, in order; their earlier steps
    belong to another run.
    """

    steps: tuple[Step, ...]
    lost: int
    ranks: int
    missing: Mapping[str, str] = field(default_factory=dict)
    time: float = 0.0
    restarted_ranks: tuple[int, ...] = ()

    @property
    def restarted(self) -> bool:
        """Whether any rank restarted since the exchange before."""
        return bool(self.restarted_ranks)


class StepMoments(Struct, frozen=True):
    """Sums over all decode steps of one rank since the engine started, as the engine reports them.

    time: unix seconds of the sums. seconds: total duration of the decode steps. requests_squared,
    requests_seconds: sums of the square of a step's requests, and of requests times seconds.
    tokens: generated. prefill_tokens, prefill_s: prompt tokens computed, and the time for them.
    """

    time: float
    steps: float
    requests: float
    seconds: float
    requests_squared: float
    requests_seconds: float
    tokens: float
    prefill_tokens: float
    prefill_s: float
    rank: int = 0


class StepMeans(Struct, frozen=True):
    """The decode steps between two readings of ``StepMoments``, all ranks together.

    base_s, per_request_s: least-squares fit of step time over requests; None where the batch size
    was almost constant. prefill_tokens, prefill_s: in the window, summed over the ranks.
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
    ranks: int
