"""Exits by a signal: which signal, and who sent it."""

from __future__ import annotations

import re
import signal

# Sent from outside to end a process: not a fault of the process.
OUTSIDE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_ASKED = re.compile(
    r"shutdown triggered|SIGTERM received|[Rr]eceived (?:signal )?(?:SIGTERM|SIGINT)"
    r"|\bShutting down\b|Gracefully exiting|KeyboardInterrupt|caught signal (?:2|15)\b"
)
# SGLang ends its own process tree by SIGKILL after it has logged why.
_SELF = re.compile(
    r"(?:Received sigquit|SIGQUIT received)|kill_process_tree called|Triggering SIGQUIT|Watchdog "
    r"timeout \("
)
# The last line of an orderly exit of uvicorn, the web server of vLLM and SGLang.
_FINISHED = re.compile(r"\bFinished server process \[(\d{1,10})\]")


def ended_by(exit_code: int | None) -> int | None:
    """The number of the signal that ended a process; None when none did.

    A shell or a container's runtime reports 128 and the number.
    """
    if exit_code is None:
        return None
    if exit_code < 0:
        return -exit_code
    number = exit_code - 128
    known = (*OUTSIDE, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
    return number if number in known else None


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def asked_to_end(text: str) -> str:
    """The termination signal that a log line reports; "" for another line."""
    if _ASKED.search(text) is None:
        return ""
    if "SIGTERM" in text or "terminated" in text:
        return "SIGTERM"
    return "SIGINT" if "SIGINT" in text or "Keyboard" in text else "SIGTERM or SIGINT"


def ends_itself(text: str) -> bool:
    """Whether a line reports that the engine kills its own processes."""
    return _SELF.search(text) is not None


def finished(text: str) -> int | None:
    """The pid of a server whose line reports an orderly exit; else None."""
    found = _FINISHED.search(text)
    return int(found[1]) if found else None
