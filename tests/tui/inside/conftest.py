"""An engine with steps, requests and causes."""

from __future__ import annotations

import pytest

from llmtop.engines.core.requests import RequestTable
from llmtop.tui.store.store import EngineTrack, Store
from tests.fake_control import FakeControl
from tests.inside_states import inside


@pytest.fixture
def seen(store: Store, control: FakeControl, now: float) -> EngineTrack:
    return inside(store, control, now)


@pytest.fixture
def table(seen: EngineTrack, control: FakeControl) -> RequestTable:
    assert control.table is not None
    return control.table
