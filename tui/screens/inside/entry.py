"""How the application opens the screens about the selected engine."""

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
    """The actions of their keys, for an application that has a store and a control."""

    store: Store
    control: Control
    config: Config
    state_folder: Path | None = None  # where the arrangement is remembered; None: nowhere
    elsewhere = ""  # the host of an engine that is seen through a Prometheus

    def current_view(self) -> View:
        """The present view."""
        raise NotImplementedError

    @property
    def beat_s(self) -> float:
        """Seconds between two paints."""
        raise NotImplementedError

    def action_log(self) -> None:
        """The log of the selected engine."""
        from llmtop.tui.screens.log import LogScreen

        if self.elsewhere:
            self.refuse()
        elif self.store.selected is not None and not isinstance(self.screen, LogScreen):
            self.push_screen(
                LogScreen(self.store.selected, self.control, self.current_view, self.beat_s)
            )

    def action_why(self) -> None:
        """Why the selected engine is slow."""
        from llmtop.tui.screens.inside.why import WhyScreen

        self._show_inside(WhyScreen)

    def action_steps(self) -> None:
        """The steps of its scheduler."""
        from llmtop.tui.screens.inside.steps import StepsScreen

        if self.elsewhere:
            self.refuse()
        else:
            self._show_inside(StepsScreen)

    def action_requests(self) -> None:
        """The requests inside it."""
        from llmtop.tui.screens.inside.requests import RequestsScreen

        if self.elsewhere:
            self.refuse()
        else:
            self._show_inside(RequestsScreen)

    def action_tune(self) -> None:
        """The tune screen: the tune that runs, or the form of one."""
        from llmtop.tui.screens.slo.tune import TuneScreen

        if self._may_measure("a tune changes options"):
            self.push_screen(TuneScreen(self.current_view, self.control, self.beat_s, self.config))

    def action_saturation(self) -> None:
        """The saturation screen: the search that runs, or the form of one."""
        from llmtop.tui.screens.saturation import SaturationScreen

        if self._may_measure("a search sends load"):
            self.push_screen(SaturationScreen(self.current_view, self.control, self.beat_s))

    def action_compare(self) -> None:
        """The compare screen: the comparison that runs, or the form of one."""
        from llmtop.tui.screens.compare import CompareScreen

        if self._may_measure("a comparison sends load and changes options"):
            self.push_screen(CompareScreen(self.current_view, self.control, self.beat_s))

    def _may_measure(self, why_not: str) -> bool:
        readonly = self.current_view().readonly
        if readonly:
            self.refuse(why_not)
        return not readonly and self.store.engine is not None

    def refuse(self, why: str = "") -> None:
        """Say as a toast why something is not done here. why: where the screen is read-only."""
        words = long_reason(self.current_view()) if self.elsewhere else f"read-only: {why}"
        self.notify(clean(words), markup=False, timeout=5)

    def _show_inside(self, kind: type[InsideScreen]) -> None:
        """One of these screens lies on the dashboard, never on another of them."""
        from llmtop.tui.screens.inside.inside_screen import InsideScreen

        if self.store.selected is None or isinstance(self.screen, kind):
            return
        screen = kind(self.current_view, self.control, self.beat_s)
        if isinstance(self.screen, InsideScreen):
            self.switch_screen(screen)
        else:
            self.push_screen(screen)
