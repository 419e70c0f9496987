"""The dashboard of a replay: the same boxes, with keys that move in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.events import Key

from llmtop.config.key_table import Place
from llmtop.tui.commands.control import Control
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.view.replay_bar import seconds_of
from llmtop.tui.view.view import View

if TYPE_CHECKING:
    from llmtop.tui.history.pair_player import PairPlayer
    from llmtop.tui.history.player import Player

MOST_TYPED = 9
# Commands that are refused in a replay.
FIXED = ("load.burst", "load.loop", "load.stop", "load.again", "load.cut")


class ReplayDashboard(Dashboard, inherit_bindings=False):
    """The dashboard of a replay.

    look: returns the view at the current time. player: of the recording. paired: show two
    recordings side by side at first.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        **{
            name: action
            for name, action in Dashboard.ACTIONS.items()
            if not name.startswith("load.") or name in FIXED
        },
        "replay.play": "play",
        "replay.faster": "speed(1)",
        "replay.slower": "speed(-1)",
        "replay.step": "step",
        "replay.on": "skip(10)",
        "replay.back": "skip(-10)",
        "replay.next": "jump(1)",
        "replay.before": "jump(-1)",
        "replay.first": "edge(0)",
        "replay.last": "edge(1)",
        "replay.moment": "moment",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(
        self,
        look: Callable[[], View],
        control: Control,
        beat_s: float,
        player: Player | PairPlayer,
        *,
        paired: bool = False,
    ) -> None:
        super().__init__(look, control, beat_s)
        self._player = player
        self._begins_paired = paired

    def on_mount(self) -> None:
        """Show two recordings side by side, if there are two."""
        super().on_mount()
        if self._begins_paired:
            self.call_after_refresh(self.action_beside)

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The keys that work now."""
        return (Place.REPLAY, Place.ENGINES, Place.CHARTS, Place.SCREEN)

    def action_play(self) -> None:
        """Pause or play."""
        self._player.toggle()
        self.redraw()

    def action_speed(self, by: int) -> None:
        """Play faster (1) or slower (-1)."""
        self._player.change_speed(by)
        self.redraw()

    def action_step(self) -> None:
        """Show the next sample."""
        self._player.step()
        self.redraw()

    def action_skip(self, seconds: int) -> None:
        """Move forward or, if negative, back by some seconds."""
        self._player.skip(seconds)
        self.redraw()

    def action_jump(self, by: int) -> None:
        """Jump to the next mark or event (1), or to the previous one (-1)."""
        self._player.jump(by)
        self.redraw()

    def action_edge(self, last: int) -> None:
        """Jump to the beginning (0) or the end (1)."""
        recording = self._player.recording
        self._player.seek(recording.ended if last else recording.began)
        self.redraw()

    def action_moment(self) -> None:
        """Start to type a time."""
        self._player.typed = ""
        self.redraw()

    async def typed_ahead(self, event: Key) -> bool:
        """Add keys to the time while it is typed."""
        if self._player.typed is None:
            return await super().typed_ahead(event)
        if event.key == "enter":
            seconds = seconds_of(self._player.typed)
            if seconds is not None:
                self._player.seek(self._player.recording.began + seconds)
            elif self._player.typed:
                self.notify("type a time such as 2:14 or 1:02:14", markup=False, timeout=4)
            self._player.typed = None
        elif event.key == "escape":
            self._player.typed = None
        elif event.key == "backspace":
            self._player.typed = self._player.typed[:-1]
        elif event.character and event.character in "0123456789:":
            self._player.typed += event.character
            self._player.typed = self._player.typed[:MOST_TYPED]
        self.redraw()
        return True
