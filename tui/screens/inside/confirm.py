"""The questions before an option is changed and before requests are aborted."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop.diagnosis.causes import Knob
from llmtop.diagnosis.explanation import effect_words
from llmtop.engines.core.requests import RequestRow
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.plots.request_rows import state_word
from llmtop.tui.screens.question import Question, identity
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, shorten
from llmtop.wording import format as f


class ChangeScreen(Question[bool | None]):
    """Returns True: change the option; None: do not."""

    ACTIONS: ClassVar[dict[str, str]] = {"change.yes": "answer", "change.no": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "change an option"

    def __init__(self, engine: EngineTrack, knob: Knob, make_view: Callable[[], View]) -> None:
        super().__init__(make_view)
        self._engine, self._knob = engine, knob

    def rows(self, cells: int) -> list[Row]:
        """The change, its expected effect, the keys."""
        knob = self._knob
        words = f"   {knob.option} {f.option(knob.before)} -> {f.option(knob.after)}"
        rows: list[Row] = [
            (),
            *identity(self._engine, self._view, cells),
            ((shorten(words, cells - 1), STRONG),),
        ]
        effects = effect_words(knob.expected)
        if effects:
            rows.append(((shorten(f"   expected: {', '.join(effects)}", cells - 1), TEXT),))
        if knob.basis:
            rows.append(((shorten(f"   {knob.basis}", cells - 1), MUTED),))
        return [
            *rows,
            (),
            *self.choice("change.yes", "change it, live", cells),
            *self.choice("change.no", "leave it as it is", cells),
            (),
        ]

    def action_answer(self) -> None:
        """Change it."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Do not change it."""
        self.dismiss(None)


class AbortScreen(Question[bool | None]):
    """Returns True: abort the request; None: let it run. Enter is no answer."""

    ACTIONS: ClassVar[dict[str, str]] = {"abort.yes": "answer", "abort.no": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "abort a request"

    def __init__(self, engine: EngineTrack, row: RequestRow, make_view: Callable[[], View]) -> None:
        super().__init__(make_view)
        self._engine, self._row = engine, row

    def rows(self, cells: int) -> list[Row]:
        """The request, its progress, the keys."""
        row = self._row
        done = f"{f.count(row.generated_tokens)} of {f.count(row.max_tokens)} tokens"
        state = f"   {state_word(row)}, {f.latency(row.age_s)} old, {done}"
        return [
            (),
            *identity(self._engine, self._view, cells)[:1],
            ((shorten(f"   {f.clean(row.id, 200)}", cells - 1), STRONG),),
            ((shorten(state, cells - 1), TEXT),),
            (("   its client gets an error or finish_reason abort", "warn"),),
            (),
            *self.choice("abort.yes", "abort it", cells),
            *self.choice("abort.no", "let it run", cells),
            (),
        ]

    def action_answer(self) -> None:
        """Abort it."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Let it run."""
        self.dismiss(None)
