"""Hooks in the loop of vLLM's engine core: idle time, received requests, wake-up.

The plugin creates the scheduler, and the scheduler has no reference to its engine core. So the
plugin finds the core when the core first reads its input queue, before its first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llmtop_vllm.patching import patch


class EngineLoop:
    """Observes the engine core of one scheduler.

    found: called once with the core. idle: called after an idle time with its begin, monotonic
    seconds. boundary: called between two steps when ``wake`` was called. received: called with each
    request from a front end, on the thread that reads them. guarded: calls its first argument under
    the guard, unless introspection is off; its second argument names the place for the error
    message. All but ``received`` are called on the engine's thread.
    """

    def __init__(
        self,
        scheduler: Any,
        found: Callable[[Any], None],
        idle: Callable[[float], None],
        boundary: Callable[[], None],
        received: Callable[[Any], None],
        guarded: Callable[[Callable[[], None], str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._found = found
        self._idle = idle
        self._boundary = boundary
        self._received = received
        self._guarded = guarded
        self._clock = clock
        self._core: Any = None
        self._wake_up: Any = None
        self.undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Find the core later. AttributeError or ImportError if vLLM's structure is unknown."""
        from vllm.v1.engine import EngineCoreRequestType
        from vllm.v1.engine.core import EngineCoreProc

        self._wake_up = getattr(EngineCoreRequestType, "WAKEUP", None)
        wait = EngineCoreProc._process_input_queue
        EngineCoreProc.has_work  # noqa: B018 - raises AttributeError now, not inside the loop

        def _process_input_queue(core: Any) -> Any:
            if core.scheduler is not self._scheduler:
                return wait(core)
            if self._core is None:
                self._guarded(lambda: self._adopt(core), "finding the engine core")
            if core.has_work():
                return wait(core)
            begun = self._clock()
            result = wait(core)
            self._guarded(lambda: self._idle(begun), "counting idle time")
            return result

        self.undo.append(patch(EngineCoreProc, "_process_input_queue", _process_input_queue))

    def wake(self) -> None:
        """Make an idle engine core reach its step boundary. Thread-safe."""
        core = self._core
        if core is not None and self._wake_up is not None:
            core.input_queue.put_nowait((self._wake_up, None))

    @property
    def wakes(self) -> bool:
        """Whether ``wake`` can wake an idle engine of this version."""
        return self._wake_up is not None

    def _adopt(self, core: Any) -> None:
        self._core = core
        self._found(core)
        handle = core._handle_client_request
        wake_up = self._wake_up

        def _handle_client_request(kind: Any, request: Any) -> Any:
            if kind is wake_up:
                self._guarded(self._boundary, "applying changes")
            return handle(kind, request)

        self.undo.append(patch(core, "_handle_client_request", _handle_client_request))
        dummy = getattr(core, "execute_dummy_batch", None)
        preprocess = getattr(core, "preprocess_add_request", None)

        def execute_dummy_batch(*args: Any, **kwargs: Any) -> Any:
            # With a mixture of experts, a rank without work steps while another rank has work.
            begun = self._clock()
            result = dummy(*args, **kwargs)
            self._guarded(lambda: self._idle(begun), "counting idle time")
            return result

        def preprocess_add_request(request: Any) -> Any:
            self._guarded(lambda: self._received(request), "receiving a request")
            return preprocess(request)

        if dummy is not None:
            self.undo.append(patch(core, "execute_dummy_batch", execute_dummy_batch))
        if preprocess is not None:
            self.undo.append(patch(core, "preprocess_add_request", preprocess_add_request))
