"""An SGLang plugin for benchmarks: it removes llmtop's hooks while max_prefill_tokens is odd.

So their cost can be measured on one engine under one load.
"""

from __future__ import annotations

from typing import Any


def register() -> None:
    """The entry point of the plugin."""
    import llmtop_sglang  # type: ignore[import-not-found]
    from llmtop_sglang.scheduler_introspection import (  # type: ignore[import-not-found]
        LOOP,
        SchedulerIntrospection,
    )

    begins = SchedulerIntrospection.round_begins
    off: dict[str, Any] = {}

    def round_begins(self: Any) -> None:
        scheduler = self._scheduler
        if scheduler.max_prefill_tokens % 2 and not off:
            off.update({name: vars(scheduler).pop(name) for name in LOOP})
            llmtop_sglang.ATTACHED.clear()
        elif off and not scheduler.max_prefill_tokens % 2:
            vars(scheduler).update(off)
            off.clear()
            llmtop_sglang.ATTACHED[:] = [self]
        if not off:
            begins(self)

    SchedulerIntrospection.round_begins = round_begins
