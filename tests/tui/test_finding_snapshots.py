"""Pictures of the saturation and the compare screen. After a wanted change: --snapshot-update."""

from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import Store
from tests.fake_control import FakeControl
from tests.finding_states import comparing, earlier, searching
from tests.tiers import first

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.mark.parametrize("look", ["colourless", "ascii"])
@pytest.mark.parametrize("key", ["s", "c"], ids=["saturation", "compare"])
def test_in_other_ways(
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    now: float,
    key: str,
    look: str,
) -> None:
    if look == "colourless":
        monkeypatch.setenv("NO_COLOR", "1")
    store.search, store.comparison = searching(now - 200), comparing(now - 300)
    store.curves = (earlier(now - 7500, 0.8, 96),)
    app = LlmtopApp(
        store, FakeControl(), clock=lambda: now, zone=UTC, ascii=look == "ascii", interval=3600
    )
    assert snap_compare(app, terminal_size=(80, 24), press=[key])


@pytest.mark.parametrize("theme", first(1, ["dark", "light"]))
@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x40", "200x60"])
@pytest.mark.parametrize("key", ["s", "c"], ids=["saturation", "compare"])
def test_screen(
    snap_compare: Callable[..., bool],
    store: Store,
    now: float,
    key: str,
    size: tuple[int, int],
    theme: str,
) -> None:
    store.search, store.comparison = searching(now - 200), comparing(now - 300)
    store.curves = (earlier(now - 90_000, 0.6, 64), earlier(now - 7500, 0.8, 96))
    app = LlmtopApp(store, FakeControl(), clock=lambda: now, zone=UTC, theme=theme, interval=3600)
    assert snap_compare(app, terminal_size=size, press=[key])
