"""llmtop's part of SGLang's HTTP process: the queue limit, and what requests wait for there.

The process that serves HTTP has a socket of its own, ``PATH.front.0``. With several tokenizer
workers the HTTP processes load no plugins, and there is none.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from llmtop_live.introspection import Introspection
from llmtop_live.latency_histogram import LatencyHistograms
from llmtop_live.socket_server import SocketServer
from llmtop_live.tunables import TunableOption, Tunables

from llmtop_sglang.queue_board import (
    REFUSED_SUFFIX,
    SUFFIX,
    BoardReader,
    Queue,
    RefusedCount,
)
from llmtop_sglang.queue_gate import CURRENT, Admission, App, QueueGate
from llmtop_sglang.request_times import SERVER, carry_arrival

log = logging.getLogger("sglang.llmtop")

HTTP = "sglang.srt.entrypoints.http_server"
MANAGER = "sglang.srt.managers.tokenizer_manager"
LOGGER = "sglang.srt.utils.request_logger"
NAMES = ("ttft", "e2e", "output_lag")
MOST_WAITING = 1_000_000
LOOK_S = 1.0  # so often new ranks are looked for
NO_TIMES = "this SGLang does not say when an answer left"
NO_FIRST = "this SGLang does not tell its HTTP process when the first token was made"


class FrontEnd:
    """Everything of ours in the HTTP process. path: the socket of the scheduler's rank 0."""

    def __init__(self, path: str, app: App, version: str) -> None:
        self._path = path
        self._boards: dict[str, BoardReader] = {}
        self._looked = 0.0
        self._refused = RefusedCount(f"{path}.front.0{REFUSED_SUFFIX}")
        self.introspection = told = Introspection(log, role="front_end")
        told.latencies = LatencyHistograms(NAMES, dict.fromkeys(NAMES[:2], SERVER))
        told.counts["refused_total"] = lambda: self._refused.value
        self._admission = Admission(self._queues, self._refused.add)
        self.gate = QueueGate(app, self._admission, self.fail, self._timed)
        self._option = _option()
        self.tunables = Tunables("sglang", version, os.getpid(), [self._option], _unknown)
        self.tunables.wake = self._apply
        self._observe()

    def open(self) -> None:
        """Answer on the socket from now on."""
        SocketServer(f"{self._path}.front.0", self.tunables, log, self.introspection).open()

    def fail(self, error: Exception, where: str) -> None:
        """The guard: nothing is refused or measured any more."""
        self.gate.active = False
        self._admission.limit = 0
        self.introspection.switch_off(error, where)
        self.tunables.disable(f"{type(error).__name__} in llmtop's part of {where}: {error}")

    # The queue limit.

    def _apply(self) -> None:
        """On a socket thread: a new limit needs no step, it holds for the next request."""
        orders = self.tunables.take()
        try:
            for order in orders:
                # The launch value is SGLang's own limit, which the scheduler keeps.
                self._admission.limit = 0 if order.to == self._option.launch else order.to
            self.tunables.settle(orders, False)
        except Exception as error:
            self.fail(error, "the queue limit")

    def _queues(self) -> list[Queue] | None:
        """What each rank shows of its queue; None when one of them shows nothing."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            for path in glob.glob(f"{glob.escape(self._path)}*{SUFFIX}"):
                if path not in self._boards:
                    self._boards[path] = BoardReader(path)
        found = [board.read() for board in self._boards.values()]
        known = [queue for queue in found if queue is not None]
        return known or None

    # What is measured.

    def _timed(self, first: float | None, last: float) -> None:
        histograms = self.introspection.latencies
        assert histograms is not None
        if first is not None:
            histograms["ttft"].add(first)
        histograms["e2e"].add(last)

    def _observe(self) -> None:
        undo = carry_arrival()
        if undo is not None:
            self.introspection.restore.append(undo)
        manager = getattr(sys.modules.get(MANAGER), "TokenizerManager", None)
        for name in ("_send_one_request", "_send_batch_request"):
            self._patch(manager, name, self._sending)
        logger = getattr(sys.modules.get(LOGGER), "RequestLogger", None)
        if not self._patch(logger, "log_finished_request", self._finished):
            self.introspection.seen("output_lag", False, NO_TIMES)

    def _patch(self, cls: Any, name: str, before: Callable[..., None]) -> bool:
        """Call ``before`` with a method's arguments, each time that it is called."""
        original = getattr(cls, name, None)
        if original is None:
            return False

        def patched(instance: Any, *args: Any, **named: Any) -> Any:
            if self.gate.active:
                try:
                    before(*args, **named)
                except Exception as error:
                    self.fail(error, name)
            return original(instance, *args, **named)

        setattr(cls, name, patched)

        def undo() -> None:
            if getattr(cls, name, None) is patched:
                setattr(cls, name, original)

        self.introspection.restore.append(undo)
        return True

    def _sending(self, *_: Any, **__: Any) -> None:
        ticket = CURRENT.get()
        if ticket is not None:
            self._admission.send(ticket)

    def _finished(self, obj: Any, out: Any, *_: Any, **__: Any) -> None:
        """An answer is complete. SGLang's own times of it are in there, where it has metrics."""
        told = out.get("meta_info") if isinstance(out, dict) else None
        histograms = self.introspection.latencies
        if not isinstance(told, dict) or histograms is None:
            return
        made, left = told.get("prefill_finished_time"), told.get("response_sent_to_client_ts")
        came = told.get("request_received_ts")
        aborted = (told.get("finish_reason") or {}).get("type") == "abort"
        if getattr(obj, "stream", False):
            if made and left:
                histograms["output_lag"].add(left - made)
            if not aborted:
                reason = NO_FIRST if left else NO_TIMES
                self.introspection.seen("output_lag", bool(made and left), reason)
        elif made and came and not aborted:
            histograms["ttft"].add(made - came)  # their first token is not observed


def _unknown() -> tuple[int, int]:
    raise LookupError("the scheduler counts its requests")


def _option() -> TunableOption:
    """The queue limit. 0 is none of ours; SGLang's own, given at launch, is never touched."""
    launch = 0
    try:
        from sglang.srt.runtime_context import get_schedule

        launch = get_schedule().max_queued_requests or 0
    except Exception:
        state = getattr(sys.modules.get(HTTP), "_global_state", None)
        args = getattr(getattr(state, "tokenizer_manager", None), "server_args", None)
        launch = getattr(args, "max_queued_requests", None) or 0
    note = "requests above it get 503 and Retry-After; 0 is no limit"
    if launch:
        note = f"refused with 503 below SGLang's own {launch}, which stays"
    return TunableOption("max_queued_requests", launch, 0, launch or MOST_WAITING, "live", note)


def around_stack(original: Callable[..., Any], app: Any, *rest: Any, **more: Any) -> Any:
    """Around ``FastAPI.build_middleware_stack``: our gate goes around SGLang's application."""
    stack = original(app, *rest, **more)
    if app is not getattr(sys.modules.get(HTTP), "app", None):
        return stack
    try:
        from sglang.version import __version__

        front = FrontEnd(os.environ["LLMTOP_LIVE_SOCKET"], stack, str(__version__))
        front.open()
    except Exception:
        log.exception("llmtop: no queue limit in this HTTP server")
        return stack
    return front.gate
