"""Log lines on standard output, in the shape of vLLM's."""

from __future__ import annotations

import os
import sys
import time


def log(text: str, level: str = "INFO") -> None:
    """One line, flushed at once. A full disk or a closed pipe is no reason for an engine to die."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    line = f"(Simulator pid={os.getpid()}) {level} {stamp} [simulator] {text}\n"
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        return
