"""The requests of vLLM's scheduler as rows of a table: lengths and times, never contents."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmtop_live.request_table import ID_LIMIT, RequestView
from llmtop_live.tunables import clean

from llmtop_vllm.queue_policy import QUEUES
from llmtop_vllm.request_clocks import RequestClock, RequestClocks


class RequestRows(RequestView):
    """Reads one scheduler between two of its steps.

    blocks: the KV blocks of a request by its internal id, None if they cannot be counted. counts:
    the present (running, waiting). clock: monotonic seconds.
    """

    def __init__(
        self,
        scheduler: Any,
        clocks: RequestClocks,
        blocks: Callable[[str], int] | None,
        counts: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._clocks = clocks
        self._blocks = blocks
        self._counts = counts
        self._clock = clock

    def running(self) -> Sequence[Any]:
        """The requests of the batch."""
        running: Sequence[Any] = self._scheduler.running
        return running

    def waiting(self) -> Iterable[Any]:
        """The queue. A heap is read in storage order: sorting it could take as long as a step."""
        queues = (getattr(self._scheduler, name, None) for name in reversed(QUEUES))
        return itertools.chain.from_iterable(
            getattr(queue, "_heap", queue) for queue in queues if queue is not None
        )

    def waiting_count(self) -> int:
        """The number of waiting requests."""
        return self._counts()[1]

    def find(self, ident: str) -> Any:
        """The unfinished request with exactly this client id or internal id, else None."""
        return self._scheduler.requests.get(self._clocks.internal.get(ident, ident))

    def arrived(self, request: Any) -> float:
        """Its arrival time, unix seconds."""
        arrived: float = request.arrival_time
        return arrived

    def is_queued(self, request: Any) -> bool:
        """Whether it waits for its first admission or for the next one."""
        return _status(request) != "RUNNING"

    def tokens(self, request: Any) -> int:
        """Prompt and generated tokens so far."""
        tokens: int = request.num_tokens
        return tokens

    def kv_blocks(self, request: Any) -> int:
        """The KV blocks that it holds."""
        return 0 if self._blocks is None else self._blocks(request.request_id)

    def row(self, request: Any, now: float) -> dict[str, Any]:
        """The fields of the protocol. now: unix seconds."""
        clock: RequestClock | None = self._clocks.open.get(request.request_id)
        status = _status(request)
        state = {"RUNNING": "running", "PREEMPTED": "preempted"}.get(status, "waiting")
        generated = request.num_output_tokens
        recomputes = request.num_computed_tokens < request.num_tokens - 1
        phase = "prefill" if not generated or recomputes else "decode"
        age = max(0.0, now - request.arrival_time)
        admitted = first = None
        if clock is not None:
            admitted, first = clock.admitted, clock.first
            age = max(0.0, self._clock() - clock.arrival)
        return {
            "id": clean(request.request_id if clock is None else clock.ident, ID_LIMIT),
            "state": state,
            "phase": phase if state == "running" else None,
            "age_s": age,
            "waited_s": _since(clock, admitted) if state != "waiting" else age,
            "ttft_s": _since(clock, first),
            "prompt_tokens": request.num_prompt_tokens,
            "cached_tokens": None if clock is None else clock.cached,
            "generated_tokens": generated,
            "max_tokens": getattr(request, "max_tokens", None),
            "kv_blocks": None if self._blocks is None else self._blocks(request.request_id),
            "preemptions": getattr(request, "num_preemptions", None),
            "priority": getattr(request, "priority", None),
        }


def _since(clock: RequestClock | None, moment: float | None) -> float | None:
    if clock is None or moment is None:
        return None
    return max(0.0, moment - clock.arrival)


def _status(request: Any) -> str:
    status = request.status
    return str(getattr(status, "name", status))
