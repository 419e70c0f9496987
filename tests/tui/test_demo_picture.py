"""The picture of the demo, computed from the simulated engine. Renew it with ``make pictures``."""

from collections.abc import Callable
from datetime import UTC

import pytest

from llmtop.tui.app import LlmtopApp
from tests.demo_state import demo_store
from tests.fake_control import FakeControl


@pytest.mark.more
def test_demo(snap_compare: Callable[..., bool], now: float) -> None:
    app = LlmtopApp(demo_store(now), FakeControl(), clock=lambda: now, zone=UTC, interval=3600)
    assert snap_compare(app, terminal_size=(120, 40))
