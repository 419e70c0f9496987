"""Wakes a scheduler that sleeps until a request comes (``--sleep-on-idle``)."""

from __future__ import annotations

import contextlib
import os
from typing import Any


class IdleWake:
    """One more descriptor in the poll that an idle scheduler sleeps in, up to a second.

    Without ``--sleep-on-idle`` the scheduler never sleeps, and nothing is done.
    """

    def __init__(self, scheduler: Any) -> None:
        self._poller: Any = getattr(getattr(scheduler, "idle_sleeper", None), "poller", None)
        self.pending = False  # something woke it: to be read on its thread
        self._reader = self._writer = -1
        register = getattr(self._poller, "register", None)
        if register is None:
            return
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        register(self._reader, 1)  # zmq.POLLIN

    def wake(self) -> None:
        """From a socket thread: the scheduler's next round comes at once."""
        if self._writer >= 0:
            with contextlib.suppress(OSError):  # full: it has been woken already
                os.write(self._writer, b"\0")
            self.pending = True

    def woken(self) -> None:
        """On the scheduler's thread: what woke it is read, so that it can sleep again."""
        self.pending = False
        if self._reader >= 0:
            with contextlib.suppress(OSError):
                os.read(self._reader, 4096)

    def undo(self) -> None:
        """Leave the poll. The descriptors stay open: a socket thread may be writing."""
        if self._reader >= 0:
            self._poller.unregister(self._reader)
            self._reader = -1
