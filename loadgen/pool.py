"""The load as its owner holds it: worker processes, started, steered, read and ended."""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.loadgen import dataset
from llmtop.loadgen.board import SIZE, Board, Cell
from llmtop.loadgen.clock import NS
from llmtop.loadgen.course import Course
from llmtop.loadgen.course import check as check_plan
from llmtop.loadgen.ledger import Ledger
from llmtop.loadgen.meter import Meter, Reading
from llmtop.loadgen.plan import Loop, Plan, Prompts, Target
from llmtop.loadgen.process import Process
from llmtop.loadgen.prompts import check
from llmtop.loadgen.results import LoadResult, LoadSnapshot, RequestRecord
from llmtop.loadgen.transport import address
from llmtop.loadgen.wire import Aim, Setup, Steer

if TYPE_CHECKING:
    from llmtop.loadgen.calibration import Calibration  # which loads a server with what is here

LEAST_JUDGED_S = 1.0  # of a window: when many streams begin, their first tokens come all at once
READY_S = 20.0  # an interpreter and its imports take 0.2 s, many times that on a crowded machine


class LoadFailed(LlmtopError):
    """The load could not be started, or all of its workers are gone."""


def default_workers() -> int:
    """Half of the cores that are ours, at most 4: one worker carries a thousand streams."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


class Load:
    """Traffic to one target. Only ``start`` (until the workers are up) and ``close`` block.

    Call ``poll`` when ``fileno`` is readable or ``snapshot`` about once a second; either takes in
    the workers' records. on_record: gets each request's record as it comes in. gaps: the records
    keep the gaps between the pieces of an answer. calibration: what the client was found to carry;
    its health is held against that too.
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
        self._calibration = calibration
        self._zero_ns = monotonic()
        self._ledger = Ledger()
        self._meter = Meter(window_s, monotonic, wall)
        self._processes: list[Process] = []
        self._boards: list[Board] = []
        self._memory: mmap.mmap | None = None
        self._epoll = select.epoll()
        self._course: Course | None = None
        self._before_burst: LoadSnapshot | None = None
        self._closed = False
        self._last: list[Reading] = []  # of the workers, once they are gone
        self._watched: set[int] = set()
        self._most_chunks_per_s = 0.0  # in any window

    def prepare(self) -> None:
        """Start the worker processes without waiting for them, so that ``start`` is quick."""
        if self._processes:
            return
        fd = os.memfd_create("llmtop-load", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, SIZE * self._count)
            self._memory = mmap.mmap(fd, SIZE * self._count)
            view = memoryview(self._memory)
            for index in range(self._count):
                self._boards.append(Board(view[index * SIZE : (index + 1) * SIZE]))
                process = Process(fd, index * SIZE)
                self._processes.append(process)
                self._epoll.register(process.fileno, select.EPOLLIN)
                self._watched.add(process.fileno)
        finally:
            os.close(fd)

    def start(self, plan: Plan) -> None:
        """Begin; once begun it is the same as ``set_plan``.

        Waits for the workers: a fifth of a second on an idle machine, 20 at most. Raises
        UsageError for a plan or a dataset that cannot be read, LoadFailed when a worker does not
        come up.
        """
        check_plan(plan)
        if self._course is not None:
            self.set_plan(plan)
            return
        self.prepare()
        with self._dataset(plan.seed) as (files, size):
            for index, process in enumerate(self._processes):
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
                )
                process.send(setup, files)
        deadline = self._now() + int(READY_S * NS)
        while any(p.alive and p.clock is None for p in self._processes):
            left = (deadline - self._now()) / NS
            if left <= 0:
                break
            self._epoll.poll(left)
            self.poll()
        if not all(p.alive and p.clock is not None for p in self._processes):
            trouble = self.troubles[0] if self.troubles else "the load workers did not come up"
            self.close()
            raise LoadFailed(trouble)
        self._meter.begin(self._readings())
        self.set_plan(plan)

    def close(self, grace_s: float = 2.0) -> None:
        """End the workers, whatever is in flight; at most ``grace_s`` each. May be called twice."""
        if self._closed:
            return
        self.poll()
        self._last = self._readings()
        self._closed = True
        for process in self._processes:
            process.hang_up()
        for process in self._processes:
            process.end(grace_s)
        self._epoll.close()
        for board in self._boards:
            board.release()
        self._boards.clear()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_plan(self, plan: Plan) -> None:
        """Follow another plan from now on; what is in flight stays in flight."""
        check_plan(plan)
        now = self._now()
        number = self._course.number + 1 if self._course else 1
        self._follow(Course(plan, start_ns=now, since_ns=now, number=number))

    def more(self) -> None:
        """A quarter more, at least one more, and hold it."""
        self._follow(self._steered.more(self._now()))

    def less(self) -> None:
        """A fifth less, at least one less, and hold it."""
        self._follow(self._steered.less(self._now()))

    def hold(self) -> None:
        """Freeze the present level."""
        self._follow(self._steered.hold(self._now()))

    def hold_at(self, level: float) -> None:
        """Hold a level of the operator's choice."""
        self._follow(self._steered.hold_at(level, self._now()))

    def resume(self) -> None:
        """Let the shape go on from where it was held."""
        self._follow(self._steered.resume(self._now()))

    def burst(self, level: float, seconds: float) -> None:
        """Another level for some seconds, then on with what was before."""
        if not self._steered.bursting(self._now()):
            self._before_burst = self.snapshot()
        self._follow(self._steered.burst(level, seconds, self._now()))

    def stop(self, drain: bool = True) -> None:
        """Send nothing more. drain: let what is in flight finish; else cut it."""
        self._follow(self._steered.stop(not drain, self._now()))

    def interrupt(self) -> None:
        """Cut what is in flight and send nothing until ``go_on``: the target is restarted."""
        self._follow(self._steered.interrupt(self._now()))

    def go_on(self) -> None:
        """Send again, at the level before ``interrupt``; a shape goes on from where it was."""
        self._follow(self._steered.go_on(self._now()))

    @property
    def target(self) -> Target:
        """Where requests go now."""
        return self._target

    def aim(self, url: str) -> None:
        """Send further requests to another server of the same model.

        What is in flight finishes where it is. UsageError for a URL of another kind: https cannot
        take over from http, whose sockets are its own.
        """
        if address(url).secure != address(self._target.url).secure:
            raise UsageError("a load cannot move between http and https", "start another one")
        self._target = replace(self._target, url=url)
        for process in self._processes:
            process.send(Aim(self._target))

    def switch_loop(self) -> None:
        """From streams to requests a second or back, holding what is achieved now.

        Under a burst: what was achieved when it began, which is what goes on after it.
        """
        course, now = self._steered, self._now()
        burst = self._before_burst if course.bursting(now) else None
        snapshot = burst or self.snapshot()
        loop = Loop.OPEN if course.plan.loop is Loop.CLOSED else Loop.CLOSED
        achieved = snapshot.requests_per_s if loop is Loop.OPEN else float(snapshot.in_flight)
        self._follow(course.switch(loop, max(achieved or 0.0, 1.0), now))

    def fileno(self) -> int:
        """Readable when ``poll`` has something to do."""
        return self._epoll.fileno()

    def poll(self) -> None:
        """Take in what the workers have to say. Never blocks."""
        for process in self._processes:
            while (message := process.receive()) is not None:
                for record in message.records:
                    self._ledger.add(record)
                    if self._on_record is not None:
                        self._on_record(record)
            if not process.alive and process.fileno in self._watched:
                self._watched.remove(process.fileno)
                self._epoll.unregister(process.fileno)

    def snapshot(self) -> LoadSnapshot:
        """The load now: counts since the start, latencies and rates over the window."""
        self.poll()
        readings = self._readings()
        self.poll()  # the records of what is over by then: an account of both must balance
        now = self._meter.snapshot(self._steered, readings, self.clock, self._ledger.errors)
        if self._calibration is None or now.window_s < LEAST_JUDGED_S:
            return now
        self._most_chunks_per_s = max(self._most_chunks_per_s, now.chunks_per_s or 0.0)
        return replace(now, health=self._calibration.judge(now.health, now.chunks_per_s))

    @property
    def clock(self) -> str:
        """Where moments come from: "kernel" or "user space"."""
        return "kernel" if all(p.clock == "kernel" for p in self._processes) else "user space"

    @property
    def troubles(self) -> list[str]:
        """Why workers are gone, a line for each."""
        return [process.trouble for process in self._processes if process.trouble]

    def spent(self) -> list[tuple[int, int, int]]:
        """Of each worker: CPU time, time it waited for a core, and the moment of both; ns."""
        return [
            (r.cell(Cell.CPU), r.cell(Cell.RUN_DELAY), r.cell(Cell.BEAT)) for r in self._readings()
        ]

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return [process.pid for process in self._processes]

    @property
    def finished(self) -> bool:
        """The shape has ended or was stopped, and every request has ended and been recorded."""
        self.poll()
        course = self._course
        if course is None:
            return False
        if self._closed or not any(process.alive for process in self._processes):
            return True
        living = [b for b, p in zip(self._boards, self._processes, strict=True) if p.alive]
        if course.running(self._now()):
            return False
        if any(b.cells[Cell.COURSE] != course.number or not b.cells[Cell.IDLE] for b in living):
            return False
        self.poll()  # a worker says idle after its last record is on its way
        return True

    def result(self) -> LoadResult:
        """The whole run so far. Latencies from each request's record, ITL from the histogram."""
        self.poll()
        run = self._meter.result(self._steered, self._readings(), self.clock, self._ledger)
        if self._calibration is None:
            return run
        # A ramp is judged at its top, as it was while it ran.
        most = max(run.chunks_per_s or 0.0, self._most_chunks_per_s)
        return replace(run, health=self._calibration.judge(run.health, most))

    @contextmanager
    def _dataset(self, seed: int) -> Iterator[tuple[list[int], int]]:
        """The sample of the dataset in a file without a name, to be handed to the workers."""
        prompts = self._prompts
        if not prompts.dataset:
            yield [], 0
            return
        packed = dataset.pack(
            dataset.sample(prompts.dataset, chat=self._target.chat, turns=prompts.turns, seed=seed)
        )
        fd = os.memfd_create("llmtop-dataset", os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(packed)
            yield [fd], len(packed)
        finally:
            os.close(fd)

    def _readings(self) -> list[Reading]:
        if self._closed:
            return self._last
        return [
            Reading(board.copy(), process.trouble)
            for board, process in zip(self._boards, self._processes, strict=True)
        ]

    @property
    def _steered(self) -> Course:
        if self._course is None:
            raise LoadFailed("the load has not been started")
        return self._course

    def _follow(self, course: Course) -> None:
        for process in self._processes:
            process.send(Steer(course))
        self._course = course
