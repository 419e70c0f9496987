"""A run of the tests that is interrupted says what it knows and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.folders import ROOT
from tests.orphaned import gone
from tests.started import RUN

pytestmark = [pytest.mark.process, pytest.mark.more]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]]
)
def test_it_has_a_summary_and_leaves_nothing(
    tmp_path: Path, workers: str, signals: list[signal.Signals]
) -> None:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != RUN and not name.startswith("PYTEST_")
    }
    file, passed = tmp_path / "pid", tmp_path / "passed"
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "tests/other/interrupted.py"],
        cwd=ROOT, env={**kept, "PID_FILE": str(file), "PASSED_FILE": str(passed)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as run:  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while not (file.exists() and file.read_text().endswith("\n")):
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            # As a terminal does it: Ctrl+C reaches every process of the run.
            for signum in signals:
                send = os.killpg if signum == signal.SIGINT else os.kill
                send(run.pid, signum)
                time.sleep(0.2)  # a person's second press; nothing shows how far the first got
            said, _ = run.communicate(timeout=120)
        finally:
            run.kill()
    assert "1 passed" in said and "KeyboardInterrupt" in said
    assert gone(int(file.read_text()))
