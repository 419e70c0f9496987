"""A real client limit must be detected: 1,000 streams of 50 tokens a second on half a core.

Usage: python -m bench.loadgen.half_core [--streams 1000] [--seconds 8] [--share 0.5]

The C server has one core. The load's worker shares another with a program that does nothing but
compute, and is stopped and continued so that it has ``--share`` of its core: what the machine's
other users do is the same for both. Prints the verdict on each measure, beside what was attained.
Exit code 1 when throughput counts as valid although less than 90 % of what is offered came.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from bench.loadgen.run import TOKENS, TTFT_MS, build, serving
from llmtop.loadgen.core.measures import Measure
from llmtop.loadgen.workers.load import Load
from llmtop.loadgen.workload.plan import Plan, Prompts, Target

SLICE_S = 0.01  # of a core's time, given and taken


def children() -> list[int]:
    """The processes that this one started."""
    told = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in told.split()]


def throttle(pids: list[int], share: float, over: threading.Event) -> None:
    """Give processes a share of the time, as a quota of a container does."""
    while not over.is_set():
        for number, length in ((signal.SIGSTOP, (1 - share)), (signal.SIGCONT, share)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(SLICE_S * length)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(description="a client that really is the limit")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.5)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    itl_ms = 1000 / given.rate
    offered = given.streams * TOKENS / (TTFT_MS / 1000 + (TOKENS - 1) * itl_ms / 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        with serving(folder, itl_ms, cores[:1]) as port:
            with suppress(PermissionError):  # what it sends must not depend on who else is here
                for pid in children():
                    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
            target = Target(f"http://127.0.0.1:{port}", "paced")
            over = threading.Event()
            with Load(target, Prompts((16, 16), (TOKENS, TOKENS)), workers=1) as load:
                load.start(Plan(shape=f"hold {given.streams}"))
                for pid in load.pids:
                    os.sched_setaffinity(pid, cores[-1:])
                limiter = threading.Thread(target=throttle, args=(load.pids, given.share, over))
                if given.share < 1:
                    limiter.start()
                ends = time.monotonic() + given.seconds
                while time.monotonic() < ends:
                    select.select([load], [], [], 0.2)
                    load.poll()
                now = load.snapshot()
                over.set()
                if given.share < 1:
                    limiter.join()
    rate = now.output_tokens_per_s or 0.0
    health = now.health
    print(f"{rate:,.0f} of {offered:,.0f} tok/s ({rate / offered:.0%}); CPU {health.cpu:.0%}")
    print(f"turnaround {health.sources.turnaround if health.sources else 0:.1%}; {health.strain}")
    for one in health.measures:
        word = "valid" if one.valid else f"not valid: {one.words}; try {one.remedy}"
        print(f"  {one.name:<9} {one.value:.4f} +-{one.bound:.4f}  {word}")
    spoilt = not all(one.valid for one in health.measures if one.measure is Measure.THROUGHPUT)
    return 0 if spoilt or rate >= 0.9 * offered else 1


if __name__ == "__main__":
    sys.exit(main())
