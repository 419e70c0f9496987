"""Starts and ends a holder in a separate process, which outlives its terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.interpreter import for_own_code
from llmtop.operations.slo.holders import holder_of
from llmtop.printable import clean

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring

LOG = "hold.log"
LOG_TAIL = 2000  # bytes
START_S, END_S, POLL_S = 30.0, 15.0, 0.05


def start(wiring: Wiring, name: str, slo: str, flags: tuple[str, ...] = ()) -> int:
    """Start a holder, and return its pid when it controls the engine. Blocks.

    flags: further flags of ``llmtop hold``. Raises LlmtopError when the engine already has a
    holder. When the holder does not start, the error contains the end of its log.
    """
    folder = wiring.state.folder(wiring.owned(name).name)
    taken = holder_of(folder)
    if taken is not None:
        raise LlmtopError(
            f"{taken.who} (pid {taken.pid}) already holds {name}, for {taken.slo}",
            f"end that hold first: llmtop hold {name} --stop",
        )
    words = [sys.executable, "-P", "-m", "llmtop", "hold", name, "--slo", slo]
    words += ["--background", "--yes", *flags]
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(folder / LOG, mode, 0o600), "wb") as log:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**wiring.environ, **for_own_code(wiring.environ)},
            cwd="/",
            start_new_session=True,
        )
    # Wait for the child in a thread: otherwise it becomes a zombie when it ends.
    threading.Thread(target=child.wait, name="holder", daemon=True).start()
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        found = holder_of(folder)
        if found is not None and found.pid == child.pid:
            return child.pid
        if child.returncode is not None:
            raise LlmtopError(f"the hold did not start: {log_tail(folder) or 'no reason given'}")
        time.sleep(POLL_S)
    child.terminate()
    raise LlmtopError("the hold did not start in time", f"see {folder / LOG}")


def end(wiring: Wiring, name: str) -> bool:
    """End the holder of an engine. The holder restores the operator's values.

    Blocks until the report and the recording are written. Returns False when no process holds the
    engine. Raises LlmtopError when the holder does not end.
    """
    folder = wiring.state.folder(wiring.owned(name).name)
    found = holder_of(folder)
    if found is None:
        return False
    began = _start_of(wiring, found.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    until = time.monotonic() + END_S
    while holder_of(folder) is not None:
        if time.monotonic() > until:
            raise LlmtopError(f"process {found.pid} still holds {name}", "see `llmtop ps`")
        time.sleep(POLL_S)
    while began is not None and _start_of(wiring, found.pid) == began and time.monotonic() < until:
        time.sleep(POLL_S)
    return True


def _start_of(wiring: Wiring, pid: int) -> int | None:
    """The start tick that identifies a process; None when it has ended."""
    entry = wiring.processes.entry(pid)
    return None if entry is None or entry.dead else entry.start_ticks


def log_tail(folder: Path) -> str:
    """The end of a detached holder's log on one line; "" without any."""
    try:
        fd = os.open(folder / LOG, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            file.seek(max(0, os.fstat(fd).st_size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode(errors="replace")
    except OSError:
        return ""
    return clean(" ".join(text.removeprefix("llmtop: ").split()), 300)
