"""A front end of vLLM (an API server process): its socket, the queue limit, aborts, latencies.

vLLM creates one ``AsyncLLM`` in each front end. Only a front end knows what it has sent to a
client, and only a front end can refuse a request before the engine receives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from llmtop_live.introspection import Introspection
from llmtop_live.latency_histogram import LatencyHistograms
from llmtop_live.socket_server import SocketServer
from llmtop_live.tunables import TunableOption, Tunables

from llmtop_vllm.api_server.arrival_stamps import stamp_arrivals
from llmtop_vllm.api_server.queue_gate import QueueGate, gated
from llmtop_vllm.api_server.request_abort import EventLoop, RequestAbort
from llmtop_vllm.api_server.ttft_recorder import TtftRecorder, flushed_by_uvloop
from llmtop_vllm.patching import patch
from llmtop_vllm.queue_counters import FRONT_ENDS, QueueCounters

MOST_QUEUED = 1_000_000
NOTE = (
    "waiting requests of each data-parallel rank; requests above the limit get 503 at once, 0 is no"
    " limit (vLLM's own --max-num-queued-reqs counts running requests too)"
)
NO_STAMP = "this vLLM's engine core does not timestamp its outputs"
BASE = {
    "ttft": "arrival at the server, until the first bytes of the answer are sent",
    "output_lag": "the engine core's output, until the front end has it ready for its client",
}


class FrontEndIntrospection(Introspection):
    """Introspection that also reports the number of refused requests."""

    gate: QueueGate | None = None

    def describe(self) -> dict[str, Any]:
        """The fields that ``get`` reports besides the options."""
        refused = 0 if self.gate is None else self.gate.refused
        return {**super().describe(), "refused_total": refused}


class FrontEnd:
    """Installs hooks in one ``AsyncLLM`` and opens the front end's socket.

    engine: the ``AsyncLLM``. path: the socket of rank 0. number: of this front end, from 0. clock:
    monotonic seconds.
    """

    def __init__(
        self,
        engine: Any,
        path: str,
        number: int,
        version: str,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock
        self._loop = EventLoop()
        counters = QueueCounters(path)
        self.gate = QueueGate(
            counters,
            counters.open_front_end(number),
            engine.output_processor.get_num_unfinished_requests,
            clock,
        )
        self._option = TunableOption("max_queued_requests", 0, 0, MOST_QUEUED, "live", NOTE)
        self.tunables = Tunables("vllm", version, os.getpid(), [self._option], _no_counts)
        self.tunables.wake = self._apply
        self.inside = inside = FrontEndIntrospection(log, number, "front_end")
        inside.gate = self.gate
        inside.latencies = LatencyHistograms(tuple(BASE), BASE)
        self.ttft = TtftRecorder(
            inside.latencies["ttft"], self._guarded, clock, flushed=flushed_by_uvloop
        )
        inside.boundary = self._loop  # type: ignore[assignment]
        inside.abort = RequestAbort(engine)  # type: ignore[assignment]

    def install(self) -> None:
        """Install the hooks. AttributeError if this front end's structure is unknown."""
        undo = self.inside.restore
        undo.append(self._open_gate)
        client, processor = self._engine.engine_core, self._engine.output_processor
        send, process = client.add_request_async, processor.process_outputs
        latencies = self.inside.latencies
        assert latencies is not None

        async def add_request_async(request: Any, *args: Any, **kwargs: Any) -> Any:
            def record() -> None:
                self.gate.submitted()
                self.ttft.submitted(request)

            self._guarded(record, "sending a request")
            return await send(request, *args, **kwargs)

        def process_outputs(outputs: Any, stamp: Any = None, *args: Any, **kwargs: Any) -> Any:
            def record() -> None:
                self.ttft.outputs_received(outputs)
                self.inside.seen("output_lag", bool(stamp), NO_STAMP)
                if stamp:
                    latencies["output_lag"].add(self._clock() - stamp, len(outputs))

            result = process(outputs, stamp, *args, **kwargs)
            self._guarded(record, "processing outputs")
            return result

        undo.append(patch(client, "add_request_async", add_request_async))
        undo.append(patch(processor, "process_outputs", process_outputs))
        undo += stamp_arrivals(self._guarded, self._clock)
        self._gate_applications()

    def _gate_applications(self) -> None:
        from fastapi import FastAPI

        build = FastAPI.build_middleware_stack

        def build_middleware_stack(application: Any) -> Any:
            inner = build(application)

            def guard(error: Exception) -> None:
                self._switch_off(error, "the gate")

            behind = gated(inner, self.gate, self.ttft, guard)

            async def answer(scope: Any, receive: Any, send: Any) -> None:
                if self.inside.off is not None:
                    return await inner(scope, receive, send)
                self._guarded(self._learn_loop, "finding the event loop")
                return await behind(scope, receive, send)

            return answer

        # Stacks that are already built keep the gate. It admits everything after the restore.
        self.inside.restore.append(patch(FastAPI, "build_middleware_stack", build_middleware_stack))

    def open(self, path: str) -> None:
        """Open the front end's socket."""
        with contextlib.suppress(RuntimeError):  # no running loop yet: the gate finds it later
            self._learn_loop()
        SocketServer(path, self.tunables, self._log, self.inside).open()

    def _learn_loop(self) -> None:
        if self._loop.loop is None:
            self._loop.loop = asyncio.get_running_loop()

    def _apply(self) -> None:
        """Apply a new limit at once: it needs no engine step and affects the next request."""
        changes = self.tunables.take()
        for change in changes:
            self.gate.limit = change.to
        self.tunables.settle(changes, again=False)

    def _guarded(self, work: Callable[[], None], where: str) -> None:
        if self.inside.off is not None:
            return
        try:
            work()
        except Exception as error:
            self._switch_off(error, where)

    def _switch_off(self, error: Exception, where: str) -> None:
        self.inside.switch_off(error, where)

    def _open_gate(self) -> None:
        self.gate.limit = 0
        self.tunables.disable(self.inside.off or "introspection is off")


def _no_counts() -> tuple[int, int]:
    raise LookupError("a front end knows only its own requests")


def hook(path: str, log: logging.Logger) -> None:
    """Attach to the ``AsyncLLM`` of this process when it is created.

    path: the socket of rank 0. ImportError if this vLLM has no ``AsyncLLM``.
    """
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.version import __version__

    make = AsyncLLM.__init__
    if getattr(make, "llmtop", False):
        return

    def __init__(engine: Any, *args: Any, **kwargs: Any) -> None:
        make(engine, *args, **kwargs)
        try:
            number = getattr(engine.engine_core, "client_index", 0)
            if not isinstance(number, int) or not 0 <= number < FRONT_ENDS:
                raise ValueError("the number of this front end is unknown")
            front_end = FrontEnd(engine, path, number, str(__version__), log)
            front_end.install()
            front_end.open(f"{path}.front.{number}")
        except Exception:
            log.warning("llmtop: no queue limit and no aborts here", exc_info=True)

    __init__.llmtop = True  # type: ignore[attr-defined]
    AsyncLLM.__init__ = __init__
