"""The actions of the application that open the screens about the selected engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from llmtop.engines.host.safe_text import clean
from llmtop.tui.commands.control import Control
from llmtop.tui.store.store import Store
from llmtop.tui.view.elsewhere import long_reason
from llmtop.tui.view.view import View

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.tui.screens.inside.inside_screen import InsideScreen


class EngineScreens(App[None]):
    """The actions of these screens' keys, for an application with a store and a control."""

    store: Store
    control: Control
    config: Config
    state_folder: Path | None = None  # has the file of hidden boxes; None: no file
    elsewhere = ""  # the host of an engine behind Prometheus, "" for others

    def current_view(self) -> View:
        """The view of this moment."""
        raise NotImplementedError

    @property
    def beat_s(self) -> float:
        """Seconds between two redraws."""
        raise NotImplementedError

    def action_log(self) -> None:
        """Open the log of the selected engine."""
        from llmtop.tui.screens.log import LogScreen

        if self.elsewhere:
            self.refuse()
        elif self.store.selected is not None and not isinstance(self.screen, LogScreen):
            self.push_screen(
                LogScreen(self.store.selected, self.control, self.current_view, self.beat_s)
            )

    def action_why(self) -> None:
        """Open the screen that explains why the selected engine is slow."""
        from llmtop.tui.screens.inside.why import WhyScreen

        self._show_inside(WhyScreen)

    def action_steps(self) -> None:
        """Open the screen of its scheduler's steps."""
        from llmtop.tui.screens.inside.steps import StepsScreen

        if self.elsewhere:
            self.refuse()
        else:
            self._show_inside(StepsScreen)

    def action_requests(self) -> None:
        """Open the screen of the requests inside it."""
        from llmtop.tui.screens.inside.requests import RequestsScreen

        if self.elsewhere:
            self.refuse()
        else:
            self._show_inside(RequestsScreen)

    def action_tune(self) -> None:
        """Open the tune screen: the tune that runs, or a form."""
        from llmtop.tui.screens.slo.tune import TuneScreen

        if self._may_measure("a tune changes options"):
            self.push_screen(TuneScreen(self.current_view, self.control, self.beat_s, self.config))

    def action_saturation(self) -> None:
        """Open the saturation screen: the search that runs, or a form."""
        from llmtop.tui.screens.saturation import SaturationScreen

        if self._may_measure("a search sends load"):
            self.push_screen(SaturationScreen(self.current_view, self.control, self.beat_s))

    def action_compare(self) -> None:
        """Open the compare screen: the comparison that runs, or a form."""
        from llmtop.tui.screens.compare import CompareScreen

        if self._may_measure("a comparison sends load and changes options"):
            self.push_screen(CompareScreen(self.current_view, self.control, self.beat_s))

    def _may_measure(self, why_not: str) -> bool:
        readonly = self.current_view().readonly
        if readonly:
            self.refuse(why_not)
        return not readonly and self.store.engine is not None

    def refuse(self, why: str = "") -> None:
        """Show a toast with the reason of a refusal. why: the reason of a read-only screen."""
        words = long_reason(self.current_view()) if self.elsewhere else f"read-only: {why}"
        self.notify(clean(words), markup=False, timeout=5)

    def _show_inside(self, kind: type[InsideScreen]) -> None:
        """Open a screen of this kind. It replaces another one of them."""
        from llmtop.tui.screens.inside.inside_screen import InsideScreen

        if self.store.selected is None or isinstance(self.screen, kind):
            return
        screen = kind(self.current_view, self.control, self.beat_s)
        if isinstance(self.screen, InsideScreen):
            self.switch_screen(screen)
        else:
            self.push_screen(screen)
