"""Pictures of the dashboard. After a wanted change: pytest with --snapshot-update."""

from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.tui.app import LlmtopApp
from llmtop.tui.control import FakeControl
from llmtop.tui.store import Store


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_dashboard(
    snap_compare: Callable[..., bool], store: Store, now: float, size: tuple[int, int], theme: str
) -> None:
    app = LlmtopApp(store, FakeControl(), clock=lambda: now, zone=UTC, theme=theme, interval=3600)
    assert snap_compare(app, terminal_size=size)
