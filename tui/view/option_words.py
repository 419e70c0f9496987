"""The texts of the options panel: restrictions of an engine and its answers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED
from llmtop.wording import format as f
from llmtop.wording.outcomes import outcome_words
from llmtop.wording.sentences import STATES, left_words

if TYPE_CHECKING:
    from llmtop.engines.supervision.restart import Restarted
    from llmtop.tui.store.store import EngineTrack


def left_changed(engine: EngineTrack | None) -> str:
    """The options that a killed comparison or tour did not restore; usually ""."""
    if engine is None or engine.status is None:
        return ""
    return f.clean(left_words(engine.name, engine.status.left), 200)


def hold_spans(engine: EngineTrack | None) -> list[Ranked]:
    """The limits and the state of a hold; empty if the engine is not held."""
    if engine is None or engine.hold is None:
        return []
    hold = engine.hold
    how = hold.words or ("limited" if hold.engaged else "not limited")
    return [
        (2, [("held for ", MUTED), (f.clean(hold.slo, 40), "mark")]),
        (3, [(f.clean(how, 40), "warn" if hold.words else MUTED)]),
    ]


def why_not(engine: EngineTrack) -> str:
    """Why no option can be changed live; for an ended engine, its state."""
    status = engine.status
    if status is None or engine.runs:
        return engine.options_note
    return f"{engine.name} {STATES[status.state]}"


def answer_words(change: Change) -> tuple[str, str]:
    """The engine's answer to a change in words, and its colour role."""
    name, value = f.clean(change.option, 60), f.option(change.after)
    if change.outcome is Outcome.REFUSED:
        return f"{name}: refused, {f.clean(change.reason or 'no reason given', 200)}", "bad"
    if change.failed:
        why = f.clean(change.reason or "no reason given", 200)
        return f"{name} = {value}: {outcome_words(change)}; {why}", "bad"
    when = f" after {change.ack_ms:.0f} ms" if change.ack_ms is not None else ""
    evicted = f", {change.evicted} put back" if change.evicted else ""
    return f"{name} = {value}: {outcome_words(change)}{when}{evicted}", "good"


def restarted_words(name: str, value: OptionValue, done: Restarted) -> tuple[str, str]:
    """The result of a restart in words, and its colour role."""
    if done.rolled_back:
        return f"rolled back: {f.clean(done.failure, 200)}", "bad"
    return f"{name} = {f.option(value)}: restarted in {f.duration(done.took_s)}", "good"
