"""Editing one option: what was typed so far, and what it means. No widget in here."""

from __future__ import annotations

import math

from msgspec import Struct

from llmtop import UsageError
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.engines.tuning import resolution
from llmtop.tui.keys.line_editor import edited
from llmtop.tui.view.elsewhere import short_reason
from llmtop.tui.view.view import View
from llmtop.wording import format as f

EVICTING = "max_num_seqs"  # lowering it can put running requests back into the queue
LONGEST = 40


class Edit(Struct):
    """at: the cursor's row. text: what was typed, None while choosing. said: the last answer."""

    at: int = 0
    text: str | None = None
    fresh: bool = False  # the text is the old value still: the first character replaces it
    evict: bool = False
    said: str = ""
    role: str = "muted"

    def move(self, by: int, count: int) -> None:
        """The cursor up or down, staying in the table."""
        self.at = max(0, min(count - 1, self.at + by))
        self.said = ""

    def begin(self, option: Option) -> None:
        """Start with the value in force."""
        self.text = "" if option.value is None else f"{option.value}"
        self.fresh, self.evict, self.said = True, False, ""

    def cancel(self) -> None:
        """Leave the value as it is."""
        self.text, self.said, self.evict = None, "", False

    def key(self, key: str, character: str | None, option: Option) -> None:
        """One key: of the line, or up and down through the choices."""
        if self.text is None:
            return
        choices = option.spec.choices
        if key in ("up", "down") and choices:
            at = choices.index(self.text) if self.text in choices else -1
            self.text = choices[(at + (1 if key == "down" else -1)) % len(choices)]
        else:
            line = edited(self.text, key, character, LONGEST, fresh=self.fresh)
            if line is None:
                return
            self.text = line
        self.fresh, self.said = False, ""

    def value(self, option: Option) -> OptionValue:
        """What was typed, as the option's kind; ``UsageError`` when it cannot be meant."""
        value = resolution.parse(option, (self.text or "").strip())
        restarts = option.applies is Applies.RESTART  # that is asked about, not refused
        why = (
            resolution.unfit(option.spec, value) if restarts else resolution.refusal(option, value)
        )
        if why is None and isinstance(value, float) and not math.isfinite(value):
            why = f"{option.name} takes a number, not {value}"  # within no bounds, yet not outside
        if why is not None:
            raise UsageError(why)
        return value

    def meant(self, option: Option) -> OptionValue:
        """The value that was typed so far, None while it is none or the one in force."""
        try:
            value = None if self.text is None else self.value(option)
        except UsageError:
            return None
        return None if value == option.value else value

    def evicts(self, option: Option) -> bool:
        """Whether what was typed would lower the batch, so that evicting is a question."""
        try:
            return self.text is not None and wants_eviction(option, self.value(option))
        except UsageError:
            return False

    def bounds(self, option: Option) -> str:
        """The bounds in words, "" when there are none."""
        if option.spec.choices:
            return f"up down: {', '.join(option.spec.choices)}"
        low, high = option.minimum, option.maximum
        if low is None and high is None:
            return ""
        return f"{_bound(low)} to {_bound(high)}"


def editing_keys(view: View) -> tuple[tuple[str, str], ...]:
    """The keys that change a value and leave it, with their words."""
    return (
        (view.keys.label("options.change"), "change"),
        (view.keys.label("options.leave"), "back"),
    )


def wants_eviction(option: Option, value: OptionValue) -> bool:
    """Whether ``value`` lowers the number of requests that may run."""
    return (
        option.name == EVICTING
        and isinstance(value, int)
        and isinstance(option.value, int)
        and value < option.value
    )


def frozen(option: Option, view: View | None) -> str:
    """Why this option cannot be changed from here, "" when it can."""
    if view is not None and view.readonly:
        return short_reason(view) if view.elsewhere else "read-only"
    owned = view is not None and view.engine is not None and view.engine.owned
    if option.applies is Applies.RESTART and not owned:
        return "needs a restart; llmtop did not start this"
    return ""


def _bound(value: float | None) -> str:
    return "any" if value is None else f.option(int(value) if value == int(value) else value)
