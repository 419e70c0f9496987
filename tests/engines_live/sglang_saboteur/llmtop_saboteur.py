"""A second SGLang plugin that makes llmtop's raise between two batches when a value becomes 777."""

from __future__ import annotations

from typing import Any

FATAL = 777


def register() -> None:
    """The entry point."""
    from llmtop_sglang.reins import Reins  # type: ignore[import-not-found]

    apply = Reins._apply

    def sabotaged(self: Any, dial: Any, to: int) -> None:
        apply(self, dial, to)  # the new value is in the scheduler when it breaks
        if to == FATAL:
            raise TypeError("sabotaged")

    Reins._apply = sabotaged
