"""The app of a replay: the dashboard with data from a file."""

from __future__ import annotations

from typing import Any

from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.replay_control import RECORDED
from llmtop.tui.history.pair_player import PairPlayer
from llmtop.tui.history.player import Player
from llmtop.tui.replay.screen import ReplayDashboard
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.view.view import View
from llmtop.values import replace


class ReplayApp(LlmtopApp):
    """The app of a replay. player: writes the recording into the store.

    args, options: of ``LlmtopApp``.
    """

    def __init__(self, player: Player | PairPlayer, *args: Any, **options: Any) -> None:
        self._player = player
        super().__init__(*args, **{"wall": player.now, **options})

    def get_default_screen(self) -> Dashboard:
        """The dashboard with the keys of a replay."""
        paired = isinstance(self._player, PairPlayer)
        return ReplayDashboard(
            self.current_view, self.control, self._interval, self._player, paired=paired
        )

    def current_view(self) -> View:
        """The input of all panels at the current time of the recording."""
        self._player.advance()
        return replace(super().current_view(), replay=self._player.position)

    def action_saturation(self) -> None:
        """Refuse: a recording cannot be loaded."""
        self.notify(RECORDED, markup=False, timeout=3)

    def action_compare(self) -> None:
        """Refuse: a recording cannot be loaded."""
        self.notify(RECORDED, markup=False, timeout=3)

    def action_tune(self) -> None:
        """Refuse: a recording cannot be tuned."""
        self.notify(RECORDED, markup=False, timeout=3)

    def action_ask_quit(self) -> None:
        """Quit without a question: a replay runs no engine."""
        self.exit()
