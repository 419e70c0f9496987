"""Pictures of the log screen. After a wanted change: pytest with --snapshot-update."""

from collections.abc import Callable
from datetime import UTC

import pytest
from textual.pilot import Pilot

from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import Store
from tests.fake_control import FakeControl
from tests.tiers import first

LINES = [
    *(f"INFO 11-26 08:00:{n:02} [loggers.py:123] Engine 000: Running: {n} reqs" for n in range(50)),
    "WARNING 11-26 08:00:50 [scheduler.py:12] preempted request 7",
    "ERROR 11-26 08:00:51 [core.py:340] EngineCore hit an exception",
    "Traceback (most recent call last):",
    '  File "core.py", line 3, in run',
    "RuntimeError: CUDA out of memory",
    *(f"INFO 11-26 08:01:{n:02} [loggers.py:123] Engine 000: Running: {n} reqs" for n in range(20)),
]


async def search(pilot: Pilot[None]) -> None:
    await pilot.press("l")
    await pilot.app.workers.wait_for_complete()
    await pilot.press("slash", *"engine", "enter", "e")
    await pilot.pause()


@pytest.mark.parametrize("theme", first(1, ["dark", "light"]))
@pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)
def test_log(
    snap_compare: Callable[..., bool], store: Store, now: float, size: tuple[int, int], theme: str
) -> None:
    app = LlmtopApp(
        store, FakeControl(LINES), clock=lambda: now, zone=UTC, theme=theme, interval=3600
    )
    assert snap_compare(app, terminal_size=size, run_before=search)


@pytest.mark.parametrize("look", ["colourless", "ascii"])
def test_log_in_other_ways(
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    now: float,
    look: str,
) -> None:
    if look == "colourless":
        monkeypatch.setenv("NO_COLOR", "1")
    app = LlmtopApp(
        store,
        FakeControl(LINES),
        clock=lambda: now,
        zone=UTC,
        ascii=look == "ascii",
        interval=3600,
    )
    assert snap_compare(app, terminal_size=(80, 24), run_before=search)
