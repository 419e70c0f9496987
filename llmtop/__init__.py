"""llmtop: start, watch, load and tune LLM engines from one terminal.

This file holds what all four parts share: the version and the one error family.
"""

from __future__ import annotations

__version__ = "0.1.0"


class LlmtopError(Exception):
    """Something went wrong that a person can act on.

    message: one sentence that names the cause, in plain words, without a full stop at its end.
    hint: what to try next, or "" when there is nothing sensible to say.

    Only the edge (the command line, the app) turns one of these into words on a screen; everything
    below raises it, or a subclass that names its area.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LlmtopError):
    """What was asked for cannot be meant: an unknown name, a value out of range (exit code 2)."""
