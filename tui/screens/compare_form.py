"""The form of a comparison: the values that it proposes, and the typed ones."""

from __future__ import annotations

import re

from llmtop import UsageError
from llmtop.engines.core.options import BATCH_LIMITS, Applies, Option, OptionValue
from llmtop.engines.tuning import resolution
from llmtop.loadgen.workload.plan import Loop
from llmtop.tui.plots.form import Form
from llmtop.tui.plots.form_values import MOST_STREAMS
from llmtop.tui.view.view import View
from llmtop.wording import format as f
from llmtop.wording.sentences import value_words

WHAT, A, B = "compare", "A", "B"
LEVEL, PAIRS, SECONDS = "streams", "pairs", "seconds a run"
PROMPT, OUTPUT = "prompt tokens", "output tokens"
AGAINST = "engine "  # before the name of the engine that is B
WITH_RESTART = "needs a restart; `llmtop compare` does that"
USUAL = "32"  # streams


def streams(form: Form, view: View) -> str:
    """The number of streams at which A and B differ, as text.

    Two batch limits begin to differ above the smaller one. At the larger one they differ most, so
    it is proposed. For another option it is the current load, else ``USUAL``.
    """
    if form[WHAT] in BATCH_LIMITS:
        values = [
            int(text.replace(",", ""))
            for text in (form[A], form[B])
            if re.fullmatch("[0-9]+(,[0-9]{3})*", text)
        ]
        if values and max(values) >= 1:
            return str(min(max(values), MOST_STREAMS))
    load = view.client
    if load is not None and load.loop == Loop.CLOSED and load.asked >= 1:
        return str(min(round(load.asked), MOST_STREAMS))
    return USUAL


def needs_restart(option: Option) -> bool:
    """Whether the option changes only with a restart of the engine."""
    return option.applies is Applies.RESTART


def propose(form: Form, options: tuple[Option, ...] | list[Option]) -> None:
    """Propose the current value as A; as B the launch value, half of A, or the other one of two."""
    a, b = form.find(A), form.find(B)
    option = next((one for one in options if one.name == form[WHAT]), None)
    if option is None:
        a.text, b.text, a.choices, b.choices = f.ABSENT, f.ABSENT, (), ()
        return
    a.choices = b.choices = ("on", "off") if option.spec.kind is bool else option.spec.choices
    value, launch = option.value, option.launch
    other: OptionValue = launch if launch != value else None
    if other is None and isinstance(value, bool):
        other = not value
    elif other is None and isinstance(value, int) and value > 1:
        other = value // 2
    a.text = "" if value is None else value_words(option.name, value)
    b.text = "" if other is None else value_words(option.name, other)
    a.hint = b.hint = f.clean(option.spec.summary, 120)


def about(options: tuple[Option, ...], what: str) -> str:
    """One line about the option that is compared. what: its name."""
    option = next((one for one in options if one.name == what), None)
    if option is None:
        return "the selected engine is A" if what else "no option is known, and no other engine"
    if needs_restart(option):
        return WITH_RESTART
    return f"{option.applies.value}. {f.clean(option.spec.summary, 120)}"


def typed_value(option: Option, text: str) -> OptionValue:
    """The typed value of the option; UsageError if it is not valid, or needs a restart."""
    value = resolution.parse(option, text)
    if needs_restart(option):
        raise UsageError(f"{option.name} {WITH_RESTART}")
    reason = resolution.refusal(option, value)
    if reason:
        raise UsageError(reason)
    return value
