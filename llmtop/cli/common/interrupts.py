"""How a command ends before its time: Ctrl+C, a signal, a connection that is lost.

Every command ends with 130 after Ctrl+C, as a shell expects of what SIGINT ended.
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
    """Whether Ctrl+C caused an exception. An answer "no" raises click's ``Abort`` too."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def stop_as_ctrl_c_does() -> None:
    """Make SIGTERM and SIGHUP end the command as Ctrl+C does: with the results so far, and with
    options put back. Under nohup a hang-up stays ignored."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, signal.default_int_handler)


def follow_output(environ: MutableMapping[str, str], descriptor: int = 1) -> None:
    """Get SIGHUP when no process reads the output any more, if the caller has asked for it.

    An sshd sends that signal only to commands that have a terminal. The variable is taken out: it
    is not for what this command starts.
    """
    if not environ.pop(FOLLOWED, ""):
        return

    def wait() -> None:
        ends = select.poll()
        ends.register(descriptor, 0)  # no event is asked for: the end is always reported
        ends.poll()
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=wait, name="output", daemon=True).start()
