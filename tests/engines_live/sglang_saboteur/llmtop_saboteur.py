"""A second SGLang plugin that makes parts of llmtop's raise between two batches and around them.

max_prefill_tokens 777: where options are changed, for good. 8000 and a few above: the hook of that
number in HOOKS, until the value is another one; then what was switched off is built again.
"""

from __future__ import annotations

from typing import Any

FATAL = 777
FATAL_HOOK = 8000
HOOKS = (
    ("StepRecorder", "round_begins"),
    ("StepRecorder", "scheduled"),
    ("StepRecorder", "launching"),
    ("StepRecorder", "launched"),
    ("StepRecorder", "processing"),
    ("StepRecorder", "processed"),
    ("RequestTimes", "released"),
    ("RequestTimes", "processed"),
)


def register() -> None:
    """The entry point."""
    from llmtop_sglang.scheduler_control import SchedulerControl  # type: ignore[import-not-found]

    apply = SchedulerControl._apply

    def sabotaged(self: Any, option: Any, to: int) -> None:
        apply(self, option, to)  # the new value is in the scheduler when it breaks
        if to == FATAL:
            raise TypeError("sabotaged")

    SchedulerControl._apply = sabotaged
    sabotage_hooks()


def sabotage_hooks() -> None:
    """Each of the hooks raises as long as the scheduler has its number."""
    from llmtop_sglang import (  # type: ignore[import-not-found]
        request_times,
        scheduler_introspection,
        step_recorder,
    )

    wanted = {"now": 0}
    for number, (owner, name) in enumerate(HOOKS):
        module = step_recorder if owner == "StepRecorder" else request_times
        _sabotage(getattr(module, owner), name, FATAL_HOOK + number, wanted)
    inside: Any = scheduler_introspection.SchedulerIntrospection
    init, begins = inside.__init__, inside.round_begins

    def remembered(self: Any, *args: Any) -> None:
        self.made_of = args
        init(self, *args)

    def round_begins(self: Any) -> None:
        scheduler = self.made_of[0]
        wanted["now"] = scheduler.max_prefill_tokens
        fatal = FATAL_HOOK <= wanted["now"] < FATAL_HOOK + len(HOOKS)
        if self.introspection.off is not None and not fatal:
            shown = self.introspection  # the socket has this one
            init(self, *self.made_of)
            vars(shown).update(vars(self.introspection))
            self.introspection = shown
        begins(self)

    inside.__init__, inside.round_begins = remembered, round_begins


def _sabotage(cls: Any, name: str, fatal: int, wanted: dict[str, int]) -> None:
    original = getattr(cls, name)

    def broken(self: Any, *args: Any, **named: Any) -> Any:
        if wanted["now"] == fatal:
            raise TypeError(f"sabotaged {name}")
        return original(self, *args, **named)

    setattr(cls, name, broken)
