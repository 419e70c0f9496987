"""The options that forecast, hold and tune know, under each engine's own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, structs

from llmtop.engines.core.options import (
    BATCH_LIMITS,
    TOKEN_BUDGETS,
    Applies,
    Option,
    OptionValue,
)
from llmtop.forecast.load import Settings
from llmtop.slo_control.limits import LimitValues

QUEUE = ("max_queued_requests",)
DRAFTS = ("num_speculative_tokens", "speculative_num_draft_tokens", "max_draft_len")
ROLES = {"batch_limit": BATCH_LIMITS, "token_budget": TOKEN_BUDGETS, "queue_limit": QUEUE}
PREFILL = ("long_prefill_token_threshold",)
MEASURED = {"draft_tokens": DRAFTS, "prefill_threshold": PREFILL}
"""Roles that ``tune`` measures and no forecast knows."""
UNLIMITED = 1 << 20


class Names(Struct, frozen=True):
    """What an engine calls its batch limit, token budget, queue limit, draft length and prefill
    threshold; "" where it has none that can be changed as it runs."""

    batch_limit: str = ""
    token_budget: str = ""
    queue_limit: str = ""
    draft_tokens: str = ""
    prefill_threshold: str = ""

    def of(self, settings: Mapping[str, int]) -> dict[str, int]:
        """Settings by role as options by name."""
        return {name: value for role, value in settings.items() if (name := getattr(self, role))}

    def held(self, values: Mapping[str, int], others: LimitValues) -> LimitValues:
        """Options by name as the controller's limits; ``others`` where an option is not there."""
        found = {role: values[name] for role in ROLES if (name := getattr(self, role)) in values}
        return structs.replace(others, **found)


def live_names(options: Iterable[Option]) -> Names:
    """The names of what can be changed as the engine runs."""
    live = {o.name for o in options if o.applies is not Applies.RESTART and not o.obstacle}
    roles = {**ROLES, **MEASURED}
    found = {role: next((n for n in names if n in live), "") for role, names in roles.items()}
    return Names(**found)


def role_of(name: str) -> str:
    """The role of an option; "" for one that a forecast does not know."""
    return next((role for role, names in ROLES.items() if name in names), "")


def settings_of(options: Sequence[Option], kv_tokens: int | None) -> Settings:
    """What is in force; a limit that is not known is none."""

    def value(names: Sequence[str], otherwise: int) -> int:
        for option in options:
            if option.name in names and isinstance(option.value, int) and option.value > 0:
                return option.value
        return otherwise

    return Settings(
        batch_limit=value(BATCH_LIMITS, UNLIMITED),
        token_budget=value(TOKEN_BUDGETS, UNLIMITED),
        queue_limit=value(QUEUE, 0),
        kv_tokens=kv_tokens or 1 << 40,
    )


def changed(settings: Settings, changes: Mapping[str, OptionValue]) -> Settings:
    """The settings with options changed, by their names."""
    known = {role_of(name): value for name, value in changes.items()}
    return structs.replace(settings, **{role: value for role, value in known.items() if role})
