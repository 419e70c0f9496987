"""Waits for the end of a load, and checks whether its result is a measurement."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.cli.common.output import note
from llmtop.loadgen.core.results import LoadResult, LoadSnapshot
from llmtop.loadgen.workload.plan import Loop

if TYPE_CHECKING:
    from llmtop.cli.common.status_line import StatusLine
    from llmtop.loadgen.workers.load import Load

WORKER_GRACE_S = 10.0  # longest wait for a worker that does not answer
SNAPSHOT_S = 1.0  # interval of snapshots, which go to other programs even if none is shown here
AT_URL = "check the URL, --model and the API key (LLMTOP_API_KEY), or read the log of that engine"
MOST_FAILED = 0.5  # highest share of failed requests in a valid measurement


def watch(load: Load, duration: float, timeout: float, line: StatusLine) -> tuple[LoadResult, bool]:
    """Wait for the end of a load, and show its progress. Returns the result, and whether Ctrl+C
    ended it.

    After Ctrl+C no new request is sent; a second Ctrl+C aborts those in flight. duration: of the
    load, timeout: of one request, both in seconds.
    """
    ends, interrupted = time.monotonic() + duration, False
    try:
        _finish(load, ends, ends + timeout + WORKER_GRACE_S, line)
    except KeyboardInterrupt:
        interrupted = True
        try:
            line.clear()
            note("no new requests; Ctrl+C again stops those in flight")
            load.stop(drain=True)
            now = time.monotonic()
            _finish(load, now, now + timeout + WORKER_GRACE_S, line)
        except KeyboardInterrupt:
            line.clear()
            note("stopping the requests in flight ...")
            load.stop(drain=False)
            now = time.monotonic()
            _finish(load, now, now + WORKER_GRACE_S, line)
    line.clear()
    return load.result(), interrupted


def _finish(load: Load, ends: float, deadline: float, line: StatusLine) -> None:
    """Wait for the last request, until the deadline at the latest. ends: when the shape ends.

    Both are times of the monotonic clock.
    """
    snapshot_at = 0.0
    while not load.finished:
        now = time.monotonic()
        if now > deadline:
            # All requests must have timed out by now: a worker hangs, is stopped, or gets no CPU.
            note("a load worker does not answer; the results do not include its requests")
            return
        select.select([load], [], [], 0.2)
        if line.due or now - snapshot_at >= SNAPSHOT_S:
            snapshot_at = now
            snapshot = load.snapshot()
            if line.due:
                line.show(progress(snapshot, ends - now, deadline - now))


def progress(now: LoadSnapshot, left_s: float, most_s: float) -> str:
    """The progress of a load in one line.

    left_s: seconds until the shape ends; then the requests in flight still finish. most_s: longest
    wait for them, in seconds.
    """
    from llmtop.wording.format import count, duration
    from llmtop.wording.format import latency as seconds

    waiting = f"waiting for the last answers, at most {duration(max(0.0, most_s))}"
    left = f"{duration(left_s)} left" if left_s > 0 else waiting
    words = (
        f"{left}  {now.in_flight} in flight  {now.ok:,} ok  {_refused(now)}{now.failed:,} failed  "
        f"{count(now.output_tokens_per_s)} tok/s  TTFT p95 {seconds(now.ttft.p95)}"
    )
    if now.oldest_wait_s is not None:
        words += f"  oldest waits {seconds(now.oldest_wait_s)}"
    if now.loop == Loop.OPEN.value and (now.late or now.not_sent):
        words += f"  {now.late:,} late  {now.not_sent:,} not sent"
    if now.oversaturated:
        words += "  over-saturated"
    if now.thinking:
        words += f"  {now.thinking:,} think"
    return words


def _refused(now: LoadSnapshot) -> str:
    from llmtop.wording.format import rate

    if not now.refused:
        return ""
    return f"{now.refused:,} refused ({rate(now.refused_per_s)}/s)  "


def require_result(result: LoadResult, gone: str, *, at_url: bool = False) -> None:
    """Raise LlmtopError when the result is no measurement: no request succeeded, most failed, or
    all workers died.

    gone: why the last worker died, "" while one lives. at_url: llmtop did not start the engine and
    has no log of it.
    """
    worst = max(result.errors, key=lambda key: result.errors[key], default="nothing was sent")
    hint = AT_URL if at_url else "see `llmtop logs`, or try one request"
    if gone:
        raise LlmtopError(f"all load workers ended: {gone}", "the results end at that moment")
    if result.ok == 0 and result.refused > result.failed:
        raise LlmtopError(
            f"no request succeeded: the engine refused {result.refused:,} of them, its queue is"
            " full",
            "raise its queue limit (max_queued_requests), or send less",
        )
    if result.ok == 0:
        raise LlmtopError(f"no request succeeded: {worst}", hint)
    asked = result.ok + result.refused + result.failed + result.cut
    if result.failed > MOST_FAILED * asked:
        raise LlmtopError(f"{result.failed:,} of {asked:,} requests failed: {worst}", hint)
