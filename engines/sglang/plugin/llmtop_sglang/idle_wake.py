"""Wakes a scheduler that sleeps until a request arrives (``--sleep-on-idle``)."""

from __future__ import annotations

import contextlib
import os
from typing import Any


class IdleWake:
    """Adds a pipe to the poll in which an idle scheduler sleeps for up to a second.

    Without ``--sleep-on-idle`` the scheduler never sleeps, and this class does nothing. pending:
    whether the pipe must be read.
    """

    def __init__(self, scheduler: Any) -> None:
        self._poller: Any = getattr(getattr(scheduler, "idle_sleeper", None), "poller", None)
        self.pending = False
        self._reader = self._writer = -1
        register = getattr(self._poller, "register", None)
        if register is None:
            return
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        register(self._reader, 1)  # zmq.POLLIN

    def wake(self) -> None:
        """Start the scheduler's next round at once. Called from socket threads."""
        if self._writer >= 0:
            with contextlib.suppress(OSError):  # the pipe is full: it is awake already
                os.write(self._writer, b"\0")
            self.pending = True

    def woken(self) -> None:
        """Read the pipe, so that the scheduler can sleep again. Called on its thread."""
        self.pending = False
        if self._reader >= 0:
            with contextlib.suppress(OSError):
                os.read(self._reader, 4096)

    def undo(self) -> None:
        """Remove the pipe from the poll. It stays open, because a socket thread may write to it."""
        if self._reader >= 0:
            self._poller.unregister(self._reader)
            self._reader = -1
