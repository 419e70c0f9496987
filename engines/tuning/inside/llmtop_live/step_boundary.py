"""Runs work of socket threads on the engine's thread, between two of its steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

MOST_WAITING = 64
WORKING_S = 5.0


class NotDone(Exception):
    """Why the work was not done, in words."""


class _Call:
    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: str | None = None
        self.done = threading.Event()


class StepBoundary:
    """Passes work from socket threads to the engine's thread.

    attention: work waits; the only attribute that the engine's thread reads at each step.
    wake: makes an idle engine reach its boundary; called from socket threads.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.attention = False
        self.wake = wake
        self._calls: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._closed: str | None = None

    # Socket threads.

    def call(self, work: Callable[[], Any], timeout_s: float = 1.0) -> Any:
        """The result of ``work()`` on the engine's thread. Raises NotDone."""
        mine = _Call(work)
        with self._lock:
            if self._closed is not None:
                raise NotDone(self._closed)
            if len(self._calls) >= MOST_WAITING:
                raise NotDone("too many requests wait for the engine's next step")
            self._calls.append(mine)
            self.attention = True
        self.wake()
        if not mine.done.wait(timeout_s) and self._take_back(mine):
            raise NotDone(f"the engine made no step within {timeout_s:g} s")
        if not mine.done.wait(WORKING_S):
            raise NotDone("the engine did not finish it in time, and may still do so")
        if mine.error is not None:
            raise NotDone(mine.error)
        return mine.result

    def _take_back(self, call: _Call) -> bool:
        """Cancel the work. Returns whether the engine's thread had not begun it."""
        with self._lock:
            if call not in self._calls:
                return False
            self._calls.remove(call)
            return True

    # The engine's thread.

    def run(self) -> None:
        """Do the waiting work. Its exceptions are raised here too, after the caller got them."""
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
            self.attention = False
        failure: Exception | None = None
        for call in calls:
            try:
                if failure is None:
                    call.result = call.work()
                else:
                    call.error = str(failure)
            except NotDone as error:
                call.error = str(error)
            except Exception as error:
                failure = error
                call.error = f"{type(error).__name__}: {error}"
            finally:
                call.done.set()
        if failure is not None:
            raise failure

    def close(self, reason: str) -> None:
        """Refuse waiting work and all later work."""
        with self._lock:
            self._closed = reason
            calls = list(self._calls)
            self._calls.clear()
            self.attention = False
        for call in calls:
            call.error = reason
            call.done.set()
