"""The worker processes of one load, with their shared memory."""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Iterator

from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.statistics.shared_counters import SIZE, Cell, SharedCounters
from llmtop.loadgen.statistics.snapshots import WorkerCounters
from llmtop.loadgen.workers.messages import Retarget, Steer
from llmtop.loadgen.workers.silent_workers import SilentWorkers
from llmtop.loadgen.workers.worker_process import WorkerProcess


class WorkerPool:
    """``count`` worker processes after ``open``. processes: all of them, also ended ones."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.processes: list[WorkerProcess] = []
        self._counters: list[SharedCounters] = []
        self._memory: mmap.mmap | None = None
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._closed = False
        self._silent = SilentWorkers()
        self._last: list[WorkerCounters] = []  # the last readings, for use after ``close``

    def open(self) -> None:
        """Start the workers without waiting for them. Raises OSError if a limit is reached."""
        if self.processes:
            return
        fd = os.memfd_create("llmtop-load", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, SIZE * self._count)
            self._memory = mmap.mmap(fd, SIZE * self._count)
            view = memoryview(self._memory)
            for index in range(self._count):
                process = WorkerProcess(fd, index * SIZE)
                self.processes.append(process)
                self._counters.append(SharedCounters(view[index * SIZE : (index + 1) * SIZE]))
                self._epoll.register(process.fileno, select.EPOLLIN)
                self._watched.add(process.fileno)
        finally:
            os.close(fd)

    def close(self, grace_s: float, now_ns: int) -> None:
        """End the workers and all their requests; wait at most ``grace_s`` seconds for each."""
        self._last = self.readings(now_ns, ever=True)
        self._closed = True
        for process in self.processes:
            process.hang_up()
        for process in self.processes:
            process.end(grace_s)
        self._epoll.close()
        for counters in self._counters:
            counters.release()
        self._counters.clear()

    def send(self, message: Steer | Retarget) -> None:
        """Send a message to each worker."""
        for process in self.processes:
            process.send(message)

    def records(self) -> Iterator[RequestRecord]:
        """The records that the workers have sent since the last call. Never blocks."""
        for process in self.processes:
            while (message := process.receive()) is not None:
                yield from message.records
            if not process.alive and process.fileno in self._watched:
                self._watched.remove(process.fileno)
                self._epoll.unregister(process.fileno)

    def fileno(self) -> int:
        """A file descriptor that is readable when a worker has sent something."""
        return self._epoll.fileno()

    def wait(self, seconds: float) -> None:
        """Wait until a worker has sent something, at most ``seconds``."""
        self._epoll.poll(seconds)

    @property
    def starting(self) -> bool:
        """Whether a worker is alive but not ready yet."""
        return any(process.alive and process.clock is None for process in self.processes)

    @property
    def ready(self) -> bool:
        """Whether all workers are alive and ready."""
        return all(process.alive and process.clock is not None for process in self.processes)

    def idle(self, schedule: int) -> bool:
        """Whether all live workers follow the schedule of this number and have ended it."""
        for counters, process in zip(self._counters, self.processes, strict=True):
            cells = counters.cells
            if process.alive and not (cells[Cell.SCHEDULE] == schedule and cells[Cell.IDLE]):
                return False
        return True

    def silent(self, now_ns: int) -> dict[int, str]:
        """The reason by process id, of each live worker that is silent; ``readings`` reports it."""
        return self._silent.update(self.processes, self._counters, now_ns)

    def readings(self, now_ns: int, ever: bool = False) -> list[WorkerCounters]:
        """The counters of each worker now; of an ended one its last counters.

        ever: also report workers that were silent earlier.
        """
        if self._closed:
            return self._last
        silent = self.silent(now_ns)
        if ever:
            silent = {**self._silent.ever, **silent}
        return [
            WorkerCounters(counters.copy(), process.trouble, silent.get(process.pid, ""))
            for counters, process in zip(self._counters, self.processes, strict=True)
        ]

    @property
    def clock(self) -> str:
        """The source of arrival times: "kernel" or "user space"."""
        kernel = all(process.clock == "kernel" for process in self.processes)
        return "kernel" if kernel else "user space"

    @property
    def troubles(self) -> list[str]:
        """Why workers have ended, one line for each."""
        return [process.trouble for process in self.processes if process.trouble]
