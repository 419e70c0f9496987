"""The state of a search in words, and its progress. Pure."""

from __future__ import annotations

from llmtop.tui.commands.experiment_requests import PREPARING, SearchState
from llmtop.tui.view.page import progress_row
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, Row, Span
from llmtop.wording.findings import streams
from llmtop.wording.sentences import remaining


def shown_state(view: View) -> SearchState | None:
    """The search to show: the running one, else the selected engine's last one, else None."""
    state, engine = view.store.search, view.engine
    if state is None or (state.over and engine is not None and state.plan.engine != engine.name):
        return None
    return state


def state_word(state: SearchState | None) -> Span:
    """The state of a search in a few words, with its colour role."""
    if state is None:
        return ("no search yet", MUTED)
    if not state.over:
        return ("searching", "load")
    if state.trouble:
        return ("ended early", "bad")
    if state.result.client_limited:
        return ("this client is the limit", "warn")
    return ("done", "good") if state.result.complete else ("stopped", "warn")


def has_invalid_level(state: SearchState | None) -> bool:
    """Whether the search has a level that is not valid."""
    return state is not None and any(not level.valid for level in state.result.levels)


def progress_of(state: SearchState, view: View, width: int) -> Row:
    """The current level and phase, with a progress bar."""
    now = state.progress
    if now is not None:
        words = f"level {now.done + 1}: {streams(now.level)}, {now.phase}"
        whole = now.elapsed_s + now.left_s
        left = remaining(now.left_s)
        return progress_row([words], now.elapsed_s / whole if whole else 0.0, left, view, width)
    if not state.over:
        return progress_row([PREPARING], 0.0, "", view, width)
    count = len(state.result.levels)
    words = f"{count} level{'' if count == 1 else 's'} measured"
    return progress_row([words], None, "", view, width)
