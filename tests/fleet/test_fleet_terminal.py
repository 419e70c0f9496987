"""``llmtop fleet`` in a terminal: what a signal leaves behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.fleet.synthetic import SyntheticFleet
from tests.fleet.scripted_prometheus import answering
from tests.llmtop_process import Home, command
from tests.terminal import Terminal

pytestmark = pytest.mark.process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(tmp_path: Path, signum: signal.Signals) -> None:
    home = Home.make(tmp_path)
    fleet = SyntheticFleet(3, 8)
    with answering(fleet.answer) as url:
        words = command("fleet", "--prometheus", url)
        with Terminal(words, home.environ) as terminal:
            terminal.see("host0002:8000")
            os.kill(terminal.pid, signum)
            assert terminal.wait() == 128 + signum
            assert terminal.canonical
    assert b"\x1b[?1049l" in terminal.raw  # the alternate screen was left
