"""A dashboard without a screen, for the recorder and for commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmtop.tui.dashboard.runtime import DashboardRuntime

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.wiring import Wiring


@contextmanager
def watch(
    wiring: Wiring, endpoints: Sequence[Endpoint], interval: float = 1.0
) -> Iterator[DashboardRuntime]:
    """The runtime of a screen, with GPU data. The caller runs and closes its ``sampling``."""
    runtime = DashboardRuntime(wiring, endpoints, interval=interval)
    try:
        yield runtime
    finally:
        runtime.release()
