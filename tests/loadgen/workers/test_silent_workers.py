"""A load worker that says nothing: its load is not the one that was asked for."""

from __future__ import annotations

import os
import select
import signal
import time

from llmtop.loadgen.client.paced_server import serving
from llmtop.loadgen.statistics.client_health import VALID
from llmtop.loadgen.workers.load import Load
from llmtop.loadgen.workload.plan import Plan, Prompts, Target

DEADLINE_S = 30.0


def until(load: Load, words: str) -> bool:
    """Whether the verdict comes to hold some words."""
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        select.select([load], [], [], 0.1)
        if words in load.snapshot().health.verdict:
            return True
    return False


def test_a_worker_that_a_signal_stopped_is_named_and_no_figure_is_believed() -> None:
    with (
        serving(0.01, 0.01) as (_, url),
        Load(Target(url, "paced"), Prompts((3, 3), (8, 8)), workers=1) as load,
    ):
        load.start(Plan(shape="hold 2"))
        (pid,) = load.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            assert until(load, f"load worker {pid} is stopped: kill -CONT {pid} continues it")
            assert not any(one.valid for one in load.snapshot().health.measures)
        finally:
            os.kill(pid, signal.SIGCONT)
        ends = time.monotonic() + DEADLINE_S
        while "is stopped" in load.snapshot().health.verdict and time.monotonic() < ends:
            select.select([load], [], [], 0.1)
        # It goes on, but the whole run is not what was asked for.
        assert "is stopped" not in load.snapshot().health.verdict
        assert load.result().health.verdict != VALID
