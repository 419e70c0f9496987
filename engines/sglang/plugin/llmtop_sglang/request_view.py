"""The requests of one SGLang scheduler as rows of a table: lengths and times, never contents."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmtop_live.request_table import ID_LIMIT, IDS_LIMIT, RequestView
from llmtop_live.tunables import clean

from llmtop_sglang.request_times import arrived

NO_FIELD = "this scheduler's requests do not report it"


class SchedulerRequests(RequestView):
    """Reads one scheduler. Called on its thread, between two rounds of its loop.

    page: tokens of a KV page. seen: see ``Introspection.seen``.
    """

    def __init__(
        self,
        scheduler: Any,
        page: int,
        seen: Callable[[str, bool, str], None] = lambda *_: None,
    ) -> None:
        self._scheduler = scheduler
        self._page = max(page, 1)
        self._seen = seen

    def running(self) -> Sequence[Any]:
        """The requests of the batch, and those of a prefill that has not joined it yet."""
        scheduler = self._scheduler
        batches = (scheduler.running_batch, scheduler.last_batch)
        found = {
            id(request): request
            for batch in batches
            if batch is not None
            for request in batch.reqs
            if request.finished_reason is None and not request.is_retracted
        }
        chunked = getattr(scheduler, "chunked_req", None)
        if chunked is not None and chunked.finished_reason is None:
            found[id(chunked)] = chunked
        return list(found.values())

    def waiting(self) -> Iterable[Any]:
        """The queue, in the order in which SGLang last sorted it."""
        queue: list[Any] = self._scheduler.waiting_queue
        return queue

    def waiting_count(self) -> int:
        """The number of waiting requests."""
        return len(self._scheduler.waiting_queue)

    def find(self, ident: str) -> Any:
        """The unfinished request with exactly this id, else None."""
        return next(iter(self.find_all([ident])), None)

    def find_all(self, idents: Sequence[str]) -> list[Any]:
        """The unfinished requests with exactly these ids; searches only the first of the queue."""
        wanted = set(idents)
        queue = itertools.islice(self._scheduler.waiting_queue, IDS_LIMIT)
        everyone = itertools.chain(self.running(), queue)
        found = {request.rid: request for request in everyone if request.rid in wanted}
        return [found[ident] for ident in idents if ident in found]

    def arrived(self, request: Any) -> float:
        """Its arrival time, perf_counter seconds."""
        return arrived(request)

    def is_queued(self, request: Any) -> bool:
        """Whether it waits for its first admission or for the next one."""
        return request.is_retracted or not request.time_stats.forward_entry_time

    def tokens(self, request: Any) -> int:
        """Prompt and generated tokens so far."""
        return len(request.origin_input_ids) + len(request.output_ids)

    def kv_blocks(self, request: Any) -> int:
        """The KV pages that it holds."""
        return self._blocks(request) or 0

    def _blocks(self, request: Any) -> int | None:
        # 0.5.23 has a separate object for it.
        held = getattr(getattr(request, "kv", None), "kv_committed_len", None)
        if held is None:
            held = getattr(request, "kv_committed_len", None)
        # In some versions a waiting request lacks the attribute.
        if not self.is_queued(request):
            self._seen("kv_blocks", held is not None, NO_FIELD)
        return None if held is None else -(-held // self._page)

    def row(self, request: Any, now: float) -> dict[str, Any]:
        """The fields of the protocol; None for unknown values. now is not used."""
        stamps = request.time_stats
        # The scheduler's timestamps are perf_counter seconds, and now is unix seconds.
        clock = time.perf_counter()
        came, entry, first = (
            arrived(request),
            stamps.forward_entry_time,
            stamps.prefill_finished_time,
        )
        queued = self.is_queued(request)
        state = ("preempted" if request.retraction_count else "waiting") if queued else "running"
        generated = len(request.output_ids)
        return {
            "id": clean(str(request.rid), ID_LIMIT),
            "state": state,
            "phase": None if queued else "decode" if generated else "prefill",
            "age_s": _since(clock, came),
            "waited_s": None if not came else (entry or clock) - came,
            "ttft_s": first - came if first and came else None,
            "prompt_tokens": len(request.origin_input_ids),
            "cached_tokens": self._count("cached_tokens of requests", request, "cached_tokens"),
            "generated_tokens": generated,
            "max_tokens": self._count("max_tokens", request.sampling_params, "max_new_tokens"),
            "kv_blocks": self._blocks(request),
            "preemptions": self._count("preemptions", request, "retraction_count"),
            "priority": self._count("priority", request, "priority"),
        }

    def _count(self, name: str, holder: Any, attribute: str) -> int | None:
        self._seen(name, hasattr(holder, attribute), NO_FIELD)
        found = getattr(holder, attribute, None)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def _since(clock: float, moment: float) -> float | None:
    return clock - moment if moment else None
