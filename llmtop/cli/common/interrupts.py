"""How a command ends early: Ctrl+C, a signal, or a lost connection.

After Ctrl+C every command exits with 130, the usual exit code of a program that SIGINT ended.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import MutableMapping

INTERRUPTED = 130  # 128 + SIGINT
FOLLOWED = "LLMTOP_FOLLOW_OUTPUT"  # as in llmtop.fleet.ssh


def by_ctrl_c(error: BaseException | None) -> bool:
    """Whether Ctrl+C caused an exception. click raises ``Abort`` for the answer "no" too."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def stop_as_ctrl_c_does() -> None:
    """Make SIGTERM and SIGHUP act as Ctrl+C: the command prints its results so far, and puts
    options back. Under nohup, SIGHUP stays ignored."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, signal.default_int_handler)


def follow_output(environ: MutableMapping[str, str], descriptor: int = 1) -> None:
    """If FOLLOWED is set, send SIGHUP to this process when nobody reads its output any more.

    sshd sends that signal only to commands with a terminal. The variable is removed from
    ``environ``, so that child processes do not inherit it.
    """
    if not environ.pop(FOLLOWED, ""):
        return

    def wait() -> None:
        ends = select.poll()
        ends.register(descriptor, 0)  # poll reports POLLERR and POLLHUP without being asked
        ends.poll()
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=wait, name="output", daemon=True).start()
