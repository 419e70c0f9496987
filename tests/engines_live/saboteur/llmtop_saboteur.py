"""A second vLLM plugin that makes llmtop's raise: the options inside schedule() when the budget
becomes 777, introspection after each step when the prefill threshold becomes 1777."""

from __future__ import annotations

from typing import Any

FATAL_BUDGET = 777
FATAL_THRESHOLD = 1777


def register() -> None:
    """The entry point."""
    from llmtop_vllm.scheduler_control import SchedulerControl  # type: ignore[import-not-found]
    from llmtop_vllm.step_recorder import StepRecorder  # type: ignore[import-not-found]

    apply = SchedulerControl._apply

    def sabotaged(self: Any, orders: Any) -> None:
        apply(self, orders)  # the new values are in the scheduler when it breaks
        if any(order.to == FATAL_BUDGET for order in orders):
            raise TypeError("sabotaged")
        if any(order.to == FATAL_THRESHOLD for order in orders):
            StepRecorder.updated = broken

    def broken(self: Any, *args: Any) -> None:
        raise TypeError("sabotaged")

    SchedulerControl._apply = sabotaged
