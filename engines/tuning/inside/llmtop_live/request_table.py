"""The requests inside one scheduler, sorted and limited. Lengths, never contents.

It runs on the engine's thread between two steps, so it reads a bounded number of requests: all
running ones, and the first of the queue, which are the oldest. Ten thousand rows would delay a
step.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MOST_ROWS = 50
QUEUE_LIMIT = 2048  # queued requests that are read, in less than a millisecond
IDS_LIMIT = 8192  # the same for a search by id, which is faster
SORTS = ("age", "kv", "tokens", "wait")
ID_LIMIT = 200


class RequestView:
    """Access to a scheduler's requests. Plugins subclass it. Called between two steps.

    A request is the engine's own object. Times are unix seconds.
    """

    def running(self) -> Sequence[Any]:
        """The requests of the batch."""
        raise NotImplementedError

    def waiting(self) -> Iterable[Any]:
        """The queue in order of admission, including preempted requests."""
        raise NotImplementedError

    def waiting_count(self) -> int:
        """The number of waiting requests."""
        raise NotImplementedError

    def find(self, ident: str) -> Any:
        """The unfinished request with exactly this id, else None."""
        raise NotImplementedError

    def find_all(self, idents: Sequence[str]) -> list[Any]:
        """The unfinished requests with exactly these ids, in one pass over a long queue."""
        found = (self.find(ident) for ident in idents)
        return [request for request in found if request is not None]

    def arrived(self, request: Any) -> float:
        """Its arrival time."""
        raise NotImplementedError

    def is_queued(self, request: Any) -> bool:
        """Whether it waits for its first admission or for the next one."""
        raise NotImplementedError

    def tokens(self, request: Any) -> int:
        """Prompt and generated tokens so far."""
        raise NotImplementedError

    def kv_blocks(self, request: Any) -> int:
        """The KV blocks that it holds."""
        raise NotImplementedError

    def row(self, request: Any, now: float) -> dict[str, Any]:
        """The fields of the protocol, without prompts, outputs and block tables."""
        raise NotImplementedError


def table(
    view: RequestView,
    now: float,
    step: int | None,
    sort: str = "age",
    limit: int = MOST_ROWS,
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The answer to ``requests``: counts, and at most ``limit`` rows, the largest first.

    now: unix seconds. step: the sequence number of the last step. sort: one of ``SORTS``. ids: only
    these requests.
    """
    running = view.running()
    waiting = view.waiting_count()
    limit = min(max(limit, 0), MOST_ROWS)
    if ids is None:
        queue = itertools.islice(view.waiting(), QUEUE_LIMIT)
        chosen = _largest(view, running, queue, sort, limit)
        read = min(waiting, QUEUE_LIMIT)
    else:
        chosen = view.find_all(ids[:MOST_ROWS])
        read = min(waiting, IDS_LIMIT)
    return {
        "now": now,
        "step": step,
        "running": len(running),
        "waiting": waiting,
        "waiting_looked_at": read,
        "requests": [view.row(request, now) for request in chosen],
    }


def _largest(
    view: RequestView, running: Sequence[Any], queue: Iterable[Any], sort: str, limit: int
) -> list[Any]:
    arrived = view.arrived
    if sort == "kv":
        largest = heapq.nlargest(limit, running, key=view.kv_blocks)
        return [*largest, *itertools.islice(queue, limit - len(largest))]
    if sort == "wait":
        longest = heapq.nsmallest(limit, queue, key=arrived)
        return [*longest, *heapq.nsmallest(limit - len(longest), running, key=arrived)]
    everyone = itertools.chain(running, queue)
    if sort == "tokens":
        return heapq.nlargest(limit, everyone, key=view.tokens)
    oldest: Callable[[Any], float] = arrived
    return heapq.nsmallest(limit, everyone, key=oldest)
