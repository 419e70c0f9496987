"""Why the selected engine is slow: causes, evidence, and the option to change."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from llmtop.config.key_table import Place
from llmtop.diagnosis.causes import Explanation, Knob
from llmtop.diagnosis.explanation import with_knobs
from llmtop.engines.core.options import Applies, Change
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.panels.state import badge, headline
from llmtop.tui.plots.why_rows import why_rows
from llmtop.tui.screens.inside.confirm import ChangeScreen
from llmtop.tui.screens.inside.inside_screen import InsideScreen, filled, foot
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.page import paragraph_rows
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import Row
from llmtop.wording import format as f
from llmtop.wording.sentences import change_words


class WhyScreen(InsideScreen):
    """The causes with their evidence. Enter sets the option of the main cause, once confirmed."""

    NAME = "why"
    help_places: ClassVar[tuple[Place, ...]] = (Place.WHY,)
    ACTIONS: ClassVar[dict[str, str]] = {
        "why.change": "change",
        "why.steps": "app.steps",
        "why.requests": "app.requests",
        "why.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def redraw(self) -> None:
        """Paint, and request forecasts for the advised options. They come later."""
        super().redraw()
        view = self._make_view()
        if self.is_seen and view.engine is not None and view.replay is None:
            self._control.expect_advised(view.engine.name)

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """The causes, the largest first, and the keys."""
        engine = view.engine
        names = ["why.steps", "why.requests", "why.back", "help"]
        why = _why(engine)
        if engine is None or why is None:
            words = "no numbers yet" if engine is None else "the engine reports no numbers now"
            if view.replay is not None:
                words = "the recording holds no causes of this time"
            rows = [(), *paragraph_rows([words], width)]
            return filled(rows, foot(names, view, width), height)
        if self._knob(engine) is not None:
            names.insert(0, "why.change")
        word = badge(headline(view, engine))
        rows = why_rows(why, engine, word, view, width)
        return filled(rows, foot(names, view, width), height)

    @staticmethod
    def _knob(engine: EngineTrack) -> Knob | None:
        """The option that the key changes: the first one of the causes that applies live."""
        why = _why(engine)
        causes = why.causes if why is not None else ()
        knobs = [cause.knob for cause in causes if cause.knob is not None]
        live = [knob for knob in knobs if knob.applies is not Applies.RESTART]
        return live[0] if live and engine.owned else None

    def action_change(self) -> None:
        """Set the option, once that is confirmed."""
        view = self._make_view()
        engine = view.engine
        knob = self._knob(engine) if engine is not None else None
        if view.readonly:
            self.notify("read-only", markup=False, timeout=2)
            return
        if engine is None or knob is None:
            self.notify("no option is known that helps and changes live", markup=False, timeout=3)
            return
        name, chosen = engine.name, knob

        async def change() -> None:
            try:
                done = await self._control.set_option(name, chosen.option, chosen.after)
            except Exception as error:
                self.show_error(error)
            else:
                self._report(done)

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(change(), group="commands", exit_on_error=False)

        self.app.push_screen(ChangeScreen(engine, chosen, self._make_view), answered)

    def _report(self, done: Change) -> None:
        self.notify(f.clean(change_words(done)), markup=False, timeout=6)
        self.redraw()


def _why(engine: EngineTrack | None) -> Explanation | None:
    """The causes, with forecasts instead of estimates if there are any."""
    if engine is None or engine.why is None:
        return None
    return with_knobs(engine.why, engine.why_forecasts)
