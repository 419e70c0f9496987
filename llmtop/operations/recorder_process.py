"""The process that records the history: one for each user and machine, started when needed.

Like engines, it outlives the process that started it. It ends when no engine runs. A lock on
``recorder.lock`` ensures a single recorder; the kernel releases the lock when its holder exits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmtop.engines.host.private_files import make_private
from llmtop.interpreter import for_own_code

MODULE = "llmtop.recorder"
LOCK = "recorder.lock"
SWITCH = "LLMTOP_HISTORY"  # "off": keep no history
CHECK_S = 5.0
RETRY_S = (5.0, 10.0, 30.0, 60.0)  # delay after the first, second, ... failure
REASON_BYTES = 500


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the user wants a history."""
    return environ.get(SWITCH, "").lower() not in ("off", "0", "no", "false")


def take_lock(folder: Path, wait_s: float = 0.0) -> int | None:
    """Take the recorder's lock. Returns its descriptor; None when another recorder has the lock.

    folder: of the history. wait_s: how long to try. Raises OSError when the lock cannot be created.
    """
    path = folder / LOCK
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not make_private(folder):
        raise PermissionError(None, f"{folder} is not a private folder of this user")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    ends = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= ends:
                os.close(fd)
                return None
        time.sleep(0.02)


class RecorderKeeper:
    """Starts the recorder if none runs, and reports why it cannot.

    folder: of the history. environ: inherited by the recorder. steady: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._environ, self._steady = folder, environ, steady
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = 0
        self._due = 0.0

    def ensure_running(self) -> str:
        """Start the recorder if none runs. Blocks for milliseconds.

        Returns why no history is kept; "" if there is no error, or none known yet.
        """
        if not is_wanted(self._environ):
            return ""
        now = self._steady()
        reason = self._ended()
        if reason:
            self._due = now + RETRY_S[min(self._failed, len(RETRY_S) - 1)]
            self._failed += 1
        if self._process is not None or now < self._due:
            return reason
        self._due = now + CHECK_S
        try:
            lock = take_lock(self._folder)
            if lock is None:
                self._failed = 0
                return reason
            os.close(lock)
            self._process = self._start()
        except OSError as error:
            self._due = now + RETRY_S[-1]
            return f"no history is kept: {(error.strerror or str(error)).lower()} ({self._folder})"
        return reason

    def _ended(self) -> str:
        """The last line on stderr of the recorder that this process started, if it failed."""
        process = self._process
        if process is None or process.poll() is None:
            return ""
        self._process = None
        output = b""
        if process.stderr is not None:
            with process.stderr as pipe, contextlib.suppress(OSError):
                output = pipe.read(REASON_BYTES) or b""
        if not process.returncode:
            self._failed = 0
            return ""
        if process.returncode < 0:
            return ""  # a signal killed it: it is started again, and nothing is lost
        words = output.decode(errors="replace").strip().splitlines()
        return words[-1] if words else f"the recorder ended with code {process.returncode}"

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {**self._environ, **for_own_code(self._environ)}
        return subprocess.Popen(
            [sys.executable, "-X", "no_debug_ranges", "-m", MODULE],
            env=environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def detach(self) -> None:
        """Detach from the recorder. It continues without this process."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.returncode = 0  # else Python warns about a running child process
        if process is not None and process.stderr is not None:
            process.stderr.close()
