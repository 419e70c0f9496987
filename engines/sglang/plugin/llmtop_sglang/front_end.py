"""llmtop's part of SGLang's HTTP process: the queue limit, and the latencies measured there.

The process that serves HTTP has its own socket, ``PATH.front.0``. With several tokenizer workers
the HTTP processes load no plugins, so there is no such socket.
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

from llmtop_sglang.queue_gate import CURRENT, Admission, App, QueueGate
from llmtop_sglang.request_times import SERVER, propagate_arrival
from llmtop_sglang.shared_queue import (
    REFUSED_SUFFIX,
    SUFFIX,
    QueueReader,
    QueueState,
    RefusedCounter,
)

log = logging.getLogger("sglang.llmtop")

HTTP = "sglang.srt.entrypoints.http_server"
MANAGER = "sglang.srt.managers.tokenizer_manager"
LOGGER = "sglang.srt.utils.request_logger"
NAMES = ("ttft", "e2e", "output_lag")
MOST_WAITING = 1_000_000
SEARCH_S = 1.0  # interval between searches for new ranks
NO_TIMES = "this SGLang does not report when an answer was sent"
NO_FIRST = "this SGLang does not report the time of the first token to its HTTP process"


class FrontEnd:
    """All of llmtop's code in the HTTP process.

    path: the socket of rank 0. app: SGLang's application. version: of SGLang.
    """

    def __init__(self, path: str, app: App, version: str) -> None:
        self._path = path
        self._readers: dict[str, QueueReader] = {}
        self._searched = 0.0
        self._refused = RefusedCounter(f"{path}.front.0{REFUSED_SUFFIX}")
        self.introspection = shown = Introspection(log, role="front_end")
        shown.latencies = LatencyHistograms(NAMES, dict.fromkeys(NAMES[:2], SERVER))
        shown.counts["refused_total"] = lambda: self._refused.value
        self._admission = Admission(self._queues, self._refused.add)
        self.gate = QueueGate(app, self._admission, self.fail, self._timed)
        self._option = _option()
        self.tunables = Tunables("sglang", version, os.getpid(), [self._option], _unknown)
        self.tunables.wake = self._apply
        self._observe()

    def open(self) -> None:
        """Open the front end's socket."""
        SocketServer(f"{self._path}.front.0", self.tunables, log, self.introspection).open()

    def fail(self, error: Exception, where: str) -> None:
        """The guard: stop refusing and measuring requests, permanently."""
        self.gate.active = False
        self._admission.limit = 0
        self.introspection.switch_off(error, where)
        self.tunables.disable(f"{type(error).__name__} in llmtop's part of {where}: {error}")

    # The queue limit.

    def _apply(self) -> None:
        """Apply a new limit at once, on a socket thread: it needs no step of the engine."""
        changes = self.tunables.take()
        try:
            for change in changes:
                # The launch value is SGLang's own limit, which the scheduler enforces.
                self._admission.limit = 0 if change.to == self._option.launch else change.to
            self.tunables.settle(changes, False)
        except Exception as error:
            self.fail(error, "the queue limit")

    def _queues(self) -> list[QueueState] | None:
        """The known queues of the ranks; None if all are unknown."""
        now = time.monotonic()
        if now - self._searched >= SEARCH_S:
            self._searched = now
            for path in glob.glob(f"{glob.escape(self._path)}*{SUFFIX}"):
                if path not in self._readers:
                    self._readers[path] = QueueReader(path)
        found = [reader.read() for reader in self._readers.values()]
        known = [queue for queue in found if queue is not None]
        return known or None

    # Measurements.

    def _timed(self, first: float | None, last: float) -> None:
        histograms = self.introspection.latencies
        assert histograms is not None
        if first is not None:
            histograms["ttft"].add(first)
        histograms["e2e"].add(last)

    def _observe(self) -> None:
        undo = propagate_arrival()
        if undo is not None:
            self.introspection.restore.append(undo)
        manager = getattr(sys.modules.get(MANAGER), "TokenizerManager", None)
        for name in ("_send_one_request", "_send_batch_request"):
            self._patch(manager, name, self._sending)
        logger = getattr(sys.modules.get(LOGGER), "RequestLogger", None)
        if not self._patch(logger, "log_finished_request", self._finished):
            self.introspection.seen("output_lag", False, NO_TIMES)

    def _patch(self, cls: Any, name: str, before: Callable[..., None]) -> bool:
        """Call ``before`` with the arguments of each call of a method. False without the method."""
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
        admitted = CURRENT.get()
        if admitted is not None:
            self._admission.send(admitted)

    def _finished(self, obj: Any, out: Any, *_: Any, **__: Any) -> None:
        """A response is complete. SGLang's own times are in ``out`` if its metrics are enabled."""
        meta = out.get("meta_info") if isinstance(out, dict) else None
        histograms = self.introspection.latencies
        if not isinstance(meta, dict) or histograms is None:
            return
        first, sent = meta.get("prefill_finished_time"), meta.get("response_sent_to_client_ts")
        received = meta.get("request_received_ts")
        aborted = (meta.get("finish_reason") or {}).get("type") == "abort"
        if getattr(obj, "stream", False):
            if first and sent:
                histograms["output_lag"].add(sent - first)
            if not aborted:
                reason = NO_FIRST if sent else NO_TIMES
                self.introspection.seen("output_lag", bool(first and sent), reason)
        elif first and received and not aborted:
            histograms["ttft"].add(first - received)  # its bytes do not show its first token


def _unknown() -> tuple[int, int]:
    raise LookupError("only the scheduler knows its requests")


def _option() -> TunableOption:
    """The queue limit. 0 is no limit of llmtop; SGLang's own launch limit is never changed."""
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
        note = f"requests above it get 503 and Retry-After; SGLang's own limit {launch} stays"
    return TunableOption("max_queued_requests", launch, 0, launch or MOST_WAITING, "live", note)


def around_stack(original: Callable[..., Any], app: Any, *rest: Any, **more: Any) -> Any:
    """Around ``FastAPI.build_middleware_stack``: wrap SGLang's application in the gate."""
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
