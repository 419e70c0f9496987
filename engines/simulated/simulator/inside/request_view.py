"""The requests of a simulated engine, for the request table of the live socket."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from llmtop.engines.simulated.simulator.model.engine import Engine
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.tuning.inside.llmtop_live.request_table import RequestView


class EngineRequests(RequestView):
    """The requests of the scheduler, without those that are still in the front end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler

    def running(self) -> Sequence[Request]:
        """The requests of the batch."""
        return self._scheduler.running

    def waiting(self) -> Iterable[Request]:
        """The queue, preempted requests first."""
        return itertools.chain(self._scheduler.waiting, self._scheduler.late)

    def waiting_count(self) -> int:
        """The number of waiting requests."""
        return self._scheduler.queued

    def find(self, ident: str) -> Request | None:
        """The unfinished request with this id, else None; not those in the front end."""
        found = self._engine.find(ident)
        return None if found is None or found.stage is Stage.ARRIVING else found

    def arrived(self, request: Request) -> float:
        """Its arrival time, monotonic seconds."""
        return self._engine.track(request).arrived

    def tokens(self, request: Request) -> int:
        """Prompt and generated tokens."""
        return request.total

    def kv_blocks(self, request: Request) -> int:
        """The KV blocks that it holds."""
        return len(request.blocks)

    def row(self, request: Request, now: float) -> dict[str, Any]:
        """The fields of the protocol. now is not used: the engine has its own clock."""
        track = self._engine.track(request)
        now = self._engine.now()
        running = request.stage is Stage.RUNNING
        begun = now if track.scheduled is None else track.scheduled
        decodes = request.generated and request.total - request.computed == 1
        return {
            "id": request.ident,
            "state": "running" if running else "preempted" if request.preemptions else "waiting",
            "phase": ("decode" if decodes else "prefill") if running else None,
            "age_s": now - track.arrived,
            "waited_s": begun - track.arrived,
            "ttft_s": None if track.first is None else track.first - track.arrived,
            "prompt_tokens": len(request.prompt),
            "cached_tokens": request.hits,
            "generated_tokens": request.generated,
            "max_tokens": track.max_tokens,
            "kv_blocks": len(request.blocks),
            "preemptions": request.preemptions,
            "priority": None,
        }
