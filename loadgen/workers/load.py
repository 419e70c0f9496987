"""A load: starts, controls, reads and ends its worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.client.transport import address
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.results import LoadResult, LoadSnapshot, RequestRecord
from llmtop.loadgen.statistics.client_health import against_capacity
from llmtop.loadgen.statistics.oversaturation import Overload
from llmtop.loadgen.statistics.run_counts import RunCounts
from llmtop.loadgen.statistics.shared_counters import Cell
from llmtop.loadgen.statistics.snapshots import SnapshotWindow
from llmtop.loadgen.statistics.totals import RunTotals
from llmtop.loadgen.workers.messages import Retarget, Setup, Steer
from llmtop.loadgen.workers.worker_pool import WorkerPool
from llmtop.loadgen.workload import dataset
from llmtop.loadgen.workload.plan import Loop, Plan, Prompts, Target
from llmtop.loadgen.workload.prompts import check
from llmtop.loadgen.workload.request_id import new_run
from llmtop.loadgen.workload.schedule import Schedule
from llmtop.loadgen.workload.schedule import check as check_plan
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.loadgen.core.client_capacity import Calibration

LEAST_JUDGED_S = 1.0  # shortest window to judge the client: a start brings a burst of tokens
SNAPSHOT_NS = NS  # between two calls of ``on_snapshot``
READY_S = 20.0  # time limit of a start: it takes 0.2 s, and much longer on a busy machine


class LoadFailed(LlmtopError):
    """The load could not be started, or all of its workers are gone."""


def default_workers() -> int:
    """Half of the cores of this process, at most 4: one worker can carry a thousand streams."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


class Load:
    """Traffic to one target. Only ``start`` (until the workers are ready) and ``close`` block.

    Call ``poll`` when ``fileno`` is readable, or ``snapshot`` about once a second; both read the
    workers' records. Raises UsageError for an invalid target, API key or prompts. timeout_s: of a
    request. window_s: of a snapshot's rates and latencies. on_record: called with each request's
    record. gaps: records keep the gaps between the chunks of an answer. calibration: the client's
    capacity, to judge its health. monotonic: nanoseconds. wall: unix seconds. on_snapshot: called
    once a second. run: prefix of the ids of its requests.
    """

    def __init__(
        self,
        target: Target,
        prompts: Prompts | None = None,
        *,
        workers: int | None = None,
        timeout_s: float = 600.0,
        window_s: float = 10.0,
        on_record: Callable[[RequestRecord], None] | None = None,
        gaps: bool = False,
        calibration: Calibration | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        on_snapshot: Callable[[LoadSnapshot], None] | None = None,
    ) -> None:
        address(target.url)
        if not (target.api_key.isascii() and target.api_key.isprintable()):
            raise UsageError("the API key holds a character that cannot be sent in a header")
        self._prompts = prompts or Prompts()
        self._target = replace(target, chat=target.chat or self._prompts.as_chat)
        check(self._prompts)
        self._count = default_workers() if workers is None else max(1, workers)
        self._timeout_s = timeout_s
        self._now = monotonic
        self._on_record = on_record
        self._gaps = gaps
        self._on_snapshot, self._snapshot_due = on_snapshot, 0
        self._calibration = calibration
        self._zero_ns = monotonic()
        self.run = new_run()
        self._totals, self._counts, self._overload = RunTotals(), RunCounts(), Overload()
        self.prompt_count: int | None = None  # of a dataset, from ``start`` on
        self._snapshots = SnapshotWindow(window_s, monotonic, wall)
        self._workers = WorkerPool(self._count)
        self._schedule: Schedule | None = None
        self._before_burst: LoadSnapshot | None = None
        self._closed = False
        self._most_chunks_per_s = 0.0  # of all windows

    def prepare(self) -> None:
        """Start the worker processes without waiting for them, so that ``start`` is quick.

        Raises LoadFailed if a limit of processes or open files is reached.
        """
        try:
            self._workers.open()
        except OSError as error:
            self.close()
            raise LoadFailed(
                f"the load workers cannot be started: {(error.strerror or str(error)).lower()}",
                "raise the limits of this shell (ulimit -n, ulimit -u), or use fewer --workers",
            ) from None

    def start(self, plan: Plan) -> None:
        """Start the load; if it is started already, same as ``set_plan``.

        Waits until the workers are ready: 0.2 s on an idle machine, at most ``READY_S``. Raises
        UsageError for a plan or a dataset that cannot be read, LoadFailed if a worker does not
        start.
        """
        check_plan(plan)
        if self._schedule is not None:
            self.set_plan(plan)
            return
        self.prepare()
        with dataset.handed(self._prompts, self._target.chat, plan.seed) as (files, size, count):
            self.prompt_count = count
            for index, process in enumerate(self._workers.processes):
                setup = Setup(
                    self._target,
                    self._prompts,
                    plan.seed,
                    index,
                    self._count,
                    self._zero_ns,
                    self._timeout_s,
                    plan.shape,
                    size,
                    self._gaps,
                    self.run,
                )
                process.send(setup, files)
        deadline = self._now() + int(READY_S * NS)
        while self._workers.starting and (left := (deadline - self._now()) / NS) > 0:
            self._workers.wait(left)
            self.poll()
        if not self._workers.ready:
            trouble = self.troubles[0] if self.troubles else "the load workers did not start"
            self.close()
            raise LoadFailed(trouble)
        self._snapshots.begin(self._workers.readings(self._now()))
        self.set_plan(plan)

    def close(self, grace_s: float = 2.0) -> None:
        """End the workers and all requests; wait ``grace_s`` s for each. May be called twice."""
        if not self._closed:
            self.poll()
            self._closed = True
            self._workers.close(grace_s, self._now())

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_plan(self, plan: Plan) -> None:
        """Follow another plan from now on; requests in flight continue."""
        check_plan(plan)
        now = self._now()
        number = self._schedule.number + 1 if self._schedule else 1
        self._follow(Schedule(plan, start_ns=now, since_ns=now, number=number))

    def more(self) -> None:
        """Raise the level by a quarter, at least by one, and hold it."""
        self._follow(self._started.more(self._now()))

    def less(self) -> None:
        """Lower the level by a fifth, at least by one, and hold it."""
        self._follow(self._started.less(self._now()))

    def hold(self) -> None:
        """Hold the present level."""
        self._follow(self._started.hold(self._now()))

    def hold_at(self, level: float) -> None:
        """Hold this level, in streams or requests a second."""
        self._follow(self._started.hold_at(level, self._now()))

    def resume(self) -> None:
        """Continue the shape from where it was held."""
        self._follow(self._started.resume(self._now()))

    def burst(self, level: float, seconds: float) -> None:
        """Set another level for some seconds, then continue as before."""
        if not self._started.bursting(self._now()):
            self._before_burst = self.snapshot()
        self._follow(self._started.burst(level, seconds, self._now()))

    def stop(self, drain: bool = True) -> None:
        """Send nothing more. drain: let requests in flight finish; else cancel them."""
        self._follow(self._started.stop(not drain, self._now()))

    def interrupt(self) -> None:
        """Cancel requests in flight and send nothing until ``go_on``, while the target restarts."""
        self._follow(self._started.interrupt(self._now()))

    def go_on(self) -> None:
        """Send again, at the level before ``interrupt``; a shape continues where it was."""
        self._follow(self._started.go_on(self._now()))

    @property
    def target(self) -> Target:
        """The target of new requests."""
        return self._target

    def retarget(self, url: str) -> None:
        """Send new requests to another server of the same model.

        Requests in flight finish at the old server. Raises UsageError for a change between http and
        https, which have different transports.
        """
        if address(url).secure != address(self._target.url).secure:
            raise UsageError("a load cannot move between http and https", "start another one")
        self._target = replace(self._target, url=url)
        self._workers.send(Retarget(self._target))

    def switch_loop(self) -> None:
        """Switch between streams and requests a second, and hold the achieved level.

        During a burst it is the level achieved before the burst.
        """
        schedule, now = self._started, self._now()
        burst = self._before_burst if schedule.bursting(now) else None
        snapshot = burst or self.snapshot()
        loop = Loop.OPEN if schedule.plan.loop is Loop.CLOSED else Loop.CLOSED
        achieved = snapshot.requests_per_s if loop is Loop.OPEN else float(snapshot.in_flight)
        self._follow(schedule.switch(loop, max(achieved or 0.0, 1.0), now))

    def fileno(self) -> int:
        """A file descriptor that is readable when ``poll`` has something to do."""
        return self._workers.fileno()

    def poll(self) -> None:
        """Read the workers' messages. Never blocks."""
        if not self._closed and self._schedule is not None:
            self._workers.silent(self._now())
        for record in self._workers.records():
            self._totals.add(record)
            self._counts.add(record)
            if self._on_record is not None:
                self._on_record(record)
        if self._on_snapshot is not None and self._schedule is not None and not self._closed:
            now = self._now()
            if now >= self._snapshot_due:
                self._snapshot_due = now + SNAPSHOT_NS  # first: ``snapshot`` calls ``poll``
                self._on_snapshot(self.snapshot())

    def snapshot(self) -> LoadSnapshot:
        """The load now: counts since the start; latencies and rates of the window."""
        self.poll()
        readings = self._workers.readings(self._now())
        self.poll()  # read the records of all requests that the counters count as ended
        now = self._snapshots.snapshot(self._started, readings, self.clock, self._totals.errors)
        self._overload.update((self._now() - self._zero_ns) / NS, now)
        now = replace(now, oversaturated=self._overload.now)
        if self._calibration is None or now.window_s < LEAST_JUDGED_S:
            return now
        self._most_chunks_per_s = max(self._most_chunks_per_s, now.chunks_per_s or 0.0)
        return replace(
            now, health=against_capacity(now.health, self._calibration, now.chunks_per_s)
        )

    @property
    def clock(self) -> str:
        """The source of arrival times: "kernel" or "user space"."""
        return self._workers.clock

    @property
    def troubles(self) -> list[str]:
        """Why workers have ended, one line for each."""
        return self._workers.troubles

    @property
    def all_gone(self) -> str:
        """Why the last worker has ended; "" while one is alive."""
        troubles = self.troubles
        return troubles[-1] if troubles and len(troubles) == self._count else ""

    def spent(self) -> list[tuple[int, int, int]]:
        """Of each worker: CPU time, wait for a core, and the time of the reading; nanoseconds."""
        return [
            (one.cell(Cell.CPU), one.cell(Cell.RUN_DELAY), one.cell(Cell.BEAT))
            for one in self._workers.readings(self._now())
        ]

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._workers.processes]

    @property
    def finished(self) -> bool:
        """Whether the shape has ended or was stopped, and every request is recorded."""
        self.poll()
        schedule = self._schedule
        if schedule is None:
            return False
        if self._closed or self.all_gone:
            return True
        if schedule.running(self._now()) or not self._workers.idle(schedule.number):
            return False
        self.poll()  # a worker reports idle after it has sent its last record
        return True

    def result(self) -> LoadResult:
        """The whole run so far. Latencies come from the records, ITL from the histogram."""
        self.poll()
        readings = self._workers.readings(self._now(), ever=True)
        run = self._snapshots.result(self._started, readings, self.clock, self._totals)
        run = self._counts.completed(run, is_open=self._started.plan.loop is Loop.OPEN)
        short = any(reading.cell(Cell.MOST_SHORT) for reading in readings)
        run = replace(
            run,
            prompts=self.prompt_count,
            oversaturated=self._overload.ever,
            oversaturated_s=self._overload.since_s,
            held_to=self.limit if short else None,
        )
        if self._calibration is None:
            return run
        # A ramp is judged by its highest window, as in the snapshots.
        most = max(run.chunks_per_s or 0.0, self._most_chunks_per_s)
        return replace(run, health=against_capacity(run.health, self._calibration, most))

    @property
    def limit(self) -> int:
        """Most requests in flight that the limit of open files allows; 0 before ``start``."""
        return sum(process.limit or 0 for process in self._workers.processes)

    @property
    def _started(self) -> Schedule:
        if self._schedule is None:
            raise LoadFailed("the load has not been started")
        return self._schedule

    def _follow(self, schedule: Schedule) -> None:
        self._workers.send(Steer(schedule))
        self._schedule = schedule
