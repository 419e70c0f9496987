"""What a test run started: it can be told from all else, and none of it outlives the run.

An engine outlives the llmtop that started it, so it has no parent by which it could be found. It
has the environment of the test that started it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psutil

RUN = "LLMTOP_TEST_RUN"  # the name of a variable that everything started by this run inherits


def begin() -> bool:
    """Give this run a name of its own; False in a worker, which takes part in one."""
    if RUN in os.environ:
        return False
    os.environ[RUN] = uuid.uuid4().hex
    return True


def left(run: str) -> Iterator[psutil.Process]:
    """The processes that a run started and that are still there."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN) == run and process.pid != os.getpid():
                yield process
        except (psutil.Error, OSError):
            continue  # it has ended, or it is somebody else's


def end_left(run: str) -> list[int]:
    """Kill what a run started and left; the pids."""
    killed: list[int] = []
    for process in left(run):
        try:
            process.kill()  # of this very process: its start time is compared
        except psutil.Error:
            continue
        killed.append(process.pid)
    return killed
