"""The picture of a replay: a real engine under overload. Renew it with ``make pictures``."""

from collections.abc import Callable
from datetime import UTC

from llmtop.history.examples import locate
from llmtop.history.recording_reader import Recording
from llmtop.tui.commands.replay_control import ReplayControl
from llmtop.tui.history.player import Player
from llmtop.tui.replay.app import ReplayApp

SHOWN_S = 64.0  # two live limits are in force, after an overload without them


def test_an_overloaded_engine(snap_compare: Callable[..., bool]) -> None:
    player = Player(Recording(locate("h200-overload")), "h200-overload", steady=lambda: 0.0)
    try:
        player.toggle()
        player.seek(player.recording.began + SHOWN_S)
        control = ReplayControl(player.playback.select, lambda name: ())
        app = ReplayApp(player, player.store, control, clock=player.now, zone=UTC)
        assert snap_compare(app, terminal_size=(120, 40))
    finally:
        player.close()
