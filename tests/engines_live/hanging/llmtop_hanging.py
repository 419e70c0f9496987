"""A vLLM plugin that holds the scheduler in its step for as long as a file is there.

The engine core's process runs and its front end answers 200 all the while, as in a real hang.
"""

from __future__ import annotations

import os
import time
from typing import Any


def register() -> None:
    """The entry point."""
    from vllm.v1.core.sched.scheduler import Scheduler  # type: ignore[import-not-found]

    schedule = Scheduler.schedule
    sign = os.environ["LLMTOP_TEST_HANG"]

    def held(self: Any, *args: Any, **named: Any) -> Any:
        while os.path.exists(sign):
            time.sleep(0.05)
        return schedule(self, *args, **named)

    Scheduler.schedule = held
