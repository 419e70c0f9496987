from llmtop.tui.commands.control import Control
from llmtop.tui.dashboard.controller import DashboardController
from tests.fake_control import FakeControl


def test_the_dashboard_can_do_all_that_a_screen_may_ask_for() -> None:
    asked = [name for name in vars(Control) if not name.startswith("_")]
    assert len(asked) > 20
    for control in (DashboardController, FakeControl):
        refused = [name for name in asked if getattr(control, name) is getattr(Control, name)]
        assert not refused
