"""Ensures that one canary rollout at a time changes an engine.

A second rollout would take the value of the first one's canary for the old value, and keep it. Each
engine's folder has a ``canary.lock``; the kernel releases it when its holder exits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmtop import LlmtopError

FILE = "canary.lock"


@contextmanager
def locked(names: Sequence[str], folder: Callable[[str], Path]) -> Iterator[None]:
    """Lock the engines for one rollout. folder: returns an engine's folder by its name.

    Raises LlmtopError when another rollout has one of them, or when a lock cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as stack:
        for name in names:
            path = folder(name) / FILE
            try:
                fd = os.open(path, flags, 0o600)
            except OSError as error:
                raise LlmtopError(f"{path} cannot be written: {error.strerror}") from None
            stack.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LlmtopError(
                    f"another canary rollout is changing {name} now",
                    "wait until it has ended, or end it with Ctrl+C",
                ) from None
        yield
