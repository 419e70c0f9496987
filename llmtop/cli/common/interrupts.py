"""Ctrl+C: every command ends with 130 after it, as a shell expects of what SIGINT ended."""

from __future__ import annotations

INTERRUPTED = 130  # 128 + SIGINT


def by_ctrl_c(error: BaseException | None) -> bool:
    """Whether an exception came of Ctrl+C: a question that was answered "no" ends as click's own
    ``Abort`` too."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
