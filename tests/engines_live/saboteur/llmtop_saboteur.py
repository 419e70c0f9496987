"""A second vLLM plugin that makes llmtop's raise inside schedule() when the budget becomes 777."""

from __future__ import annotations

from typing import Any

FATAL_BUDGET = 777


def register() -> None:
    """The entry point."""
    from llmtop_vllm.reins import Reins  # type: ignore[import-not-found]

    apply = Reins._apply

    def sabotaged(self: Any, orders: Any) -> None:
        apply(self, orders)  # the new values are in the scheduler when it breaks
        if any(order.to == FATAL_BUDGET for order in orders):
            raise TypeError("sabotaged")

    Reins._apply = sabotaged
