"""Log lines on standard output, in vLLM's format."""

from __future__ import annotations

import os
import sys
import time


def log(text: str, level: str = "INFO") -> None:
    """Write one line and flush it. Ignores errors: a full disk must not end the engine."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    line = f"(Simulator pid={os.getpid()}) {level} {stamp} [simulator] {text}\n"
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        return
