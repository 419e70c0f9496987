"""The pictures of the documents: each is a snapshot of the program. ``make pictures`` renews all.

``python -m tests.pictures`` runs the tests behind them with ``--snapshot-update`` and copies what
they draw. Look at the difference before you commit it: it is what users will see.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.folders import ROOT, TESTS

PICTURES = ROOT / "docs" / "pictures"
SNAPSHOTS = TESTS / "tui" / "__snapshots__"
# The picture's name and the test that draws it: module/test[parameters].
SHOWN = {
    "demo": "test_demo_picture/test_demo",
    "small": "test_snapshots/test_dashboard[80x24-dark]",
    "large": "test_snapshots/test_dashboard[200x60-dark]",
    "beside": "test_snapshots/test_dashboard_in_other_ways[beside]",
    "startup": "test_pictures/test_screen[startup-120x40-dark]",
    "options": "test_pictures/test_screen[options-120x40-dark]",
    "stop": "test_pictures/test_dialog[stop-80x24-dark]",
    "stale": "test_pictures/test_an_engine_that_does_not_answer[120x40]",
    "palette": "test_pictures/test_screen[palette-120x40-dark]",
    "help": "test_pictures/test_screen[help-200x60-dark]",
    "log": "test_log_pictures/test_log[120x40-dark]",
    "saturation": "test_finding_snapshots/test_screen[saturation-120x40-dark]",
    "replay": "test_replay_picture/test_an_overloaded_engine",
    "compare": "test_finding_snapshots/test_screen[compare-120x40-dark]",
}


def snapshot(name: str) -> Path:
    """Where the test behind the picture keeps what the program drew."""
    return SNAPSHOTS / f"{SHOWN[name]}.raw"


def picture(name: str) -> Path:
    """Where the documents have it."""
    return PICTURES / f"{name}.svg"


def node(name: str) -> str:
    """The test behind the picture, as pytest names it."""
    module, test = SHOWN[name].split("/", 1)
    return f"{(TESTS / 'tui' / module).relative_to(ROOT)}.py::{test}"


def main() -> int:
    """Draw and copy all pictures; the exit code of pytest."""
    nodes = [node(name) for name in SHOWN]
    command = [sys.executable, "-m", "pytest", "-q", "--snapshot-update", *nodes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(re.sub(r"\n{2,}", "\n", done.stdout + done.stderr), file=sys.stderr)
        return done.returncode
    for name in SHOWN:
        old = picture(name).read_bytes() if picture(name).exists() else b""
        shutil.copyfile(snapshot(name), picture(name))
        state = "as before" if old == picture(name).read_bytes() else "changed"
        print(f"{picture(name).relative_to(ROOT)}: {state}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
