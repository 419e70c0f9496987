"""Two tests of which one never ends: what an interrupted run is made of. No part of the suite."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def test_one_that_passes() -> None:
    Path(os.environ["PASSED_FILE"]).touch()


def test_one_that_leaves_a_process_and_waits() -> None:
    while not Path(os.environ["PASSED_FILE"]).exists():
        time.sleep(0.05)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    Path(os.environ["PID_FILE"]).write_text(f"{process.pid}\n")
    time.sleep(600)
