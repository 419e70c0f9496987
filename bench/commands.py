"""Commands of llmtop, as benchmarks run them: their JSON, their duration, waiting for a state."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LLMTOP = (sys.executable, "-m", "llmtop")


class StepFailed(Exception):
    """A step of a benchmark failed; the steps after it are still made."""


def llmtop(*args: str, fails: bool = False) -> Any:
    """Run a command that prints JSON; StepFailed when it fails and was not to, or the reverse."""
    done = subprocess.run([*LLMTOP, *args], capture_output=True, text=True, check=False)
    if (done.returncode != 0) is not fails:
        said = done.stderr.strip().splitlines()[-3:]
        raise StepFailed(f"llmtop {' '.join(args)}: exit code {done.returncode}, {said}")
    return json.loads(done.stdout)


def timed(*args: str, fails: bool = False) -> tuple[float, Any]:
    """The same, and its duration in seconds."""
    begun = time.monotonic()
    found = llmtop(*args, fails=fails)
    return time.monotonic() - begun, found


def until(what: Callable[[], bool], within_s: float) -> float | None:
    """Seconds until it held; None when it did not."""
    begun = time.monotonic()
    while not what():
        if time.monotonic() - begun > within_s:
            return None
        time.sleep(0.05)
    return time.monotonic() - begun


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
