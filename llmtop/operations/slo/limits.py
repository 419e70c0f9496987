"""The options that forecast, hold and tune use, by role and by each engine's names."""

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
"""Roles that ``tune`` measures, because the forecast cannot predict them."""
UNLIMITED = 1 << 20


class Names(Struct, frozen=True):
    """The engine's option names by role: batch limit, token budget, queue limit, draft length,
    prefill threshold. "" if the engine has no such live option."""

    batch_limit: str = ""
    token_budget: str = ""
    queue_limit: str = ""
    draft_tokens: str = ""
    prefill_threshold: str = ""

    def of(self, settings: Mapping[str, int]) -> dict[str, int]:
        """Convert values by role into values by option name."""
        return {name: value for role, value in settings.items() if (name := getattr(self, role))}

    def held(self, values: Mapping[str, int], others: LimitValues) -> LimitValues:
        """Convert values by option name into limits; those of ``others`` for missing options."""
        found = {role: values[name] for role in ROLES if (name := getattr(self, role)) in values}
        return structs.replace(others, **found)


def live_names(options: Iterable[Option]) -> Names:
    """The names of the options that can be changed live now."""
    live = {o.name for o in options if o.applies is not Applies.RESTART and not o.obstacle}
    roles = {**ROLES, **MEASURED}
    found = {role: next((n for n in names if n in live), "") for role, names in roles.items()}
    return Names(**found)


def role_of(name: str) -> str:
    """The role of an option; "" for an option that the forecast does not use."""
    return next((role for role, names in ROLES.items() if name in names), "")


def settings_of(options: Sequence[Option], kv_tokens: int | None) -> Settings:
    """The settings in force. An unknown limit counts as no limit."""

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
    """The settings with changed options, given by name. Options without a role are ignored."""
    known = {role_of(name): value for name, value in changes.items()}
    return structs.replace(settings, **{role: value for role, value in known.items() if role})
