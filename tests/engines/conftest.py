"""A state directory for engines that really run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.host.processes import Processes
from llmtop.engines.state.state_directory import StateDirectory


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """Engines that still write a log in it are killed at the end."""
    directory = StateDirectory(tmp_path / "state", tmp_path / "sockets")
    yield directory
    processes = Processes()
    for log in (tmp_path / "state" / "engines").glob("*/engine.log*"):
        for one in processes.writers(log):
            processes.send(one, signal.SIGKILL)
