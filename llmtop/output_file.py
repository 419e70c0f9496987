"""Opens the files that commands write their results to."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TextIO


def open_output(path: Path, *, append: bool = False) -> TextIO:
    """Open a file for text, empty or at its end. OSError when it cannot be.

    A pipe or a device is written to as it is. The open does not wait for a reader of a named pipe:
    without one it fails.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(path.stat().st_mode):
            raise OSError(errno.ENXIO, "no process reads this pipe") from None
        raise
    os.set_blocking(fd, True)  # a reader may be slower than the writer
    return open(fd, "w", encoding="utf-8", errors="replace", newline="")
