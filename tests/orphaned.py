"""Real processes that look like an engine's orphan: an engine's title, and a parent that died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TITLE = "VLLM::EngineCore"
DEADLINE_S = 30.0

# The parent starts a child under the engine's title, tells its pid, and ends at once.
_PARENT = """
import subprocess, sys
child = subprocess.Popen(
    [sys.argv[1], "-c", sys.argv[2], *sys.argv[3:]], executable=sys.executable,
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    start_new_session=True,
)
child.stdout.readline()
print(child.pid, flush=True)
"""
_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
_WITH_CHILD = "import subprocess; subprocess.Popen(['sleep', '120'], stdout=subprocess.DEVNULL)"


@contextlib.contextmanager
def orphan(
    title: str = TITLE, *, stubborn: bool = False, with_child: bool = False
) -> Iterator[int]:
    """The pid of a process whose parent is dead; it is ended when the block is left."""
    lines = [
        *([_STUBBORN] if stubborn else []),
        *([_WITH_CHILD] if with_child else []),
        "import time; print('up', flush=True); time.sleep(120)",
    ]
    told = subprocess.run(
        [sys.executable, "-c", _PARENT, title, "; ".join(lines)],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    pid = int(told.stdout)
    group = os.getpgid(pid)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process has ended, within the deadline; a zombie counts as ended."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False
