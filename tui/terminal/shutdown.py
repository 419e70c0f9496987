"""Exits on a signal: cleans up, and restores the terminal in every case."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LEAVE_S = 5.0  # time limit to restore the terminal and end the load
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
# Resets the modes that the screen has set: bracketed paste, line wrap, size reports, mouse,
# keyboard protocol, alternate screen, cursor, focus reports.
RESTORE = (
    b"\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[<u"
    b"\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


class Shutdown:
    """Handles termination signals.

    Create it before the screen uses the terminal: it saves the terminal's state.
    """

    def __init__(self) -> None:
        self._signum: signal.Signals | None = None
        self._attributes: list[Any] | None = None
        with suppress(termios.error, OSError, ValueError):
            self._attributes = termios.tcgetattr(sys.stdin.fileno())

    def listen(self, leave: Callable[[], None]) -> None:
        """Call ``leave`` on the running loop when a signal arrives. Call it in the main thread."""
        loop = asyncio.get_running_loop()

        def on_signal(signum: signal.Signals) -> None:
            self._signum = signum
            leave()
            # A write to a terminal that is gone may block, so a timer forces the exit.
            deadline = threading.Timer(LEAVE_S, self._force_exit, (signum,))
            deadline.daemon = True
            deadline.start()

        for signum in SIGNALS:
            loop.add_signal_handler(signum, on_signal, signum)

    @property
    def exit_code(self) -> int:
        """128 + the signal that ended the screen; 0 without one. Ctrl+C is a key, not a signal."""
        return 128 + self._signum if self._signum is not None else 0

    def finish(self) -> None:
        """After SIGQUIT, end by that signal: its sender expects that status and a core dump."""
        if self._signum is signal.SIGQUIT:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGQUIT)

    def _force_exit(self, signum: signal.Signals) -> None:
        with suppress(termios.error, OSError, ValueError):
            if self._attributes is not None:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._attributes)
        with suppress(OSError, ValueError):
            fd = 1  # standard output, even if sys.stdout was replaced
            if select.select([], [fd], [], 0)[1]:
                os.write(fd, RESTORE)
        os._exit(128 + signum)
