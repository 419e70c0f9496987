"""Editing of one option: the typed text and its meaning. No widgets."""

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

EVICTING = "max_num_seqs"  # a lower value can move running requests back to the queue
LONGEST = 40


class Edit(Struct):
    """The state of the editor in the options panel.

    at: the cursor's row. text: the typed text; None while no option is edited. fresh: the text is
    still the old value, which the first character replaces. evict: move running requests back to
    the queue. message: the last answer or error. role: the colour role of the message.
    """

    at: int = 0
    text: str | None = None
    fresh: bool = False
    evict: bool = False
    message: str = ""
    role: str = "muted"

    def move(self, by: int, count: int) -> None:
        """Move the cursor within a table of ``count`` rows: up (negative) or down."""
        self.at = max(0, min(count - 1, self.at + by))
        self.message = ""

    def begin(self, option: Option) -> None:
        """Begin to edit, with the value in force as the text."""
        self.text = "" if option.value is None else f"{option.value}"
        self.fresh, self.evict, self.message = True, False, ""

    def cancel(self) -> None:
        """Stop editing; the value stays."""
        self.text, self.message, self.evict = None, "", False

    def key(self, key: str, character: str | None, option: Option) -> None:
        """Handle a key: edit the text, or select a choice with up and down."""
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
        self.fresh, self.message = False, ""

    def value(self, option: Option) -> OptionValue:
        """The typed value. Raises UsageError if it is not valid for the option."""
        value = resolution.parse(option, (self.text or "").strip())
        restarts = option.applies is Applies.RESTART  # needs a confirmation, is not refused
        why = (
            resolution.launch_refusal(option.spec, value)
            if restarts
            else resolution.refusal(option, value)
        )
        if why is None and isinstance(value, float) and not math.isfinite(value):
            why = f"{option.name} takes a number, not {value}"  # a NaN passes every check of bounds
        if why is not None:
            raise UsageError(why)
        return value

    def typed_value(self, option: Option) -> OptionValue:
        """The typed value; None if it is not valid or equals the value in force."""
        try:
            value = None if self.text is None else self.value(option)
        except UsageError:
            return None
        return None if value == option.value else value

    def evicts(self, option: Option) -> bool:
        """Whether the typed value lowers the batch limit, so that eviction is an option."""
        try:
            return self.text is not None and wants_eviction(option, self.value(option))
        except UsageError:
            return False

    def bounds(self, option: Option) -> str:
        """The bounds or choices in words; "" if there are none."""
        if option.spec.choices:
            return f"up down: {', '.join(option.spec.choices)}"
        low, high = option.minimum, option.maximum
        if low is None and high is None:
            return ""
        return f"{_bound(low)} to {_bound(high)}"


def editing_keys(view: View) -> tuple[tuple[str, str], ...]:
    """The keys to change a value and to leave the editor, with their labels."""
    return (
        (view.keys.label("options.change"), "change"),
        (view.keys.label("options.leave"), "back"),
    )


def wants_eviction(option: Option, value: OptionValue) -> bool:
    """Whether ``value`` lowers the limit of running requests."""
    return (
        option.name == EVICTING
        and isinstance(value, int)
        and isinstance(option.value, int)
        and value < option.value
    )


def frozen(option: Option, view: View | None) -> str:
    """Why this option cannot be changed from this screen; "" if it can."""
    if view is not None and view.readonly:
        return short_reason(view) if view.elsewhere else "read-only"
    owned = view is not None and view.engine is not None and view.engine.owned
    if option.applies is Applies.RESTART and not owned:
        return "needs a restart; llmtop did not start this"
    return ""


def _bound(value: float | None) -> str:
    return "any" if value is None else f.option(int(value) if value == int(value) else value)
