"""Pictures of the dashboard. After a wanted change: pytest with --snapshot-update."""

from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import EngineTrack, Store
from tests.fake_control import FakeControl


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)
def test_dashboard(
    snap_compare: Callable[..., bool], store: Store, now: float, size: tuple[int, int], theme: str
) -> None:
    app = LlmtopApp(store, FakeControl(), clock=lambda: now, zone=UTC, theme=theme, interval=3600)
    assert snap_compare(app, terminal_size=size)


@pytest.mark.parametrize("look", ["ascii", "beside"])
def test_dashboard_in_other_ways(
    snap_compare: Callable[..., bool],
    store: Store,
    make_engine: Callable[..., EngineTrack],
    now: float,
    look: str,
) -> None:
    store.engines["other"] = make_engine("other", 8001)
    app = LlmtopApp(
        store, FakeControl(), clock=lambda: now, zone=UTC, ascii=look == "ascii", interval=3600
    )
    press = ["v"] if look == "beside" else []
    assert snap_compare(app, press=press, terminal_size=(120, 40))
