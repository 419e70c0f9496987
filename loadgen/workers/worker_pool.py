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
    """``count`` of them, once ``open``. processes: in their order, also those that are gone."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.processes: list[WorkerProcess] = []
        self._boards: list[SharedCounters] = []
        self._memory: mmap.mmap | None = None
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._closed = False
        self._silent = SilentWorkers()
        self._last: list[WorkerCounters] = []  # once they are gone

    def open(self) -> None:
        """Start them without waiting for them. Raises OSError where that cannot be."""
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
                self._boards.append(SharedCounters(view[index * SIZE : (index + 1) * SIZE]))
                self._epoll.register(process.fileno, select.EPOLLIN)
                self._watched.add(process.fileno)
        finally:
            os.close(fd)

    def close(self, grace_s: float, now_ns: int) -> None:
        """End them, whatever is in flight; at most ``grace_s`` each."""
        self._last = self.readings(now_ns, ever=True)
        self._closed = True
        for process in self.processes:
            process.hang_up()
        for process in self.processes:
            process.end(grace_s)
        self._epoll.close()
        for counters in self._boards:
            counters.release()
        self._boards.clear()

    def send(self, message: Steer | Retarget) -> None:
        """Send a message to each."""
        for process in self.processes:
            process.send(message)

    def records(self) -> Iterator[RequestRecord]:
        """The requests that they have reported since. Never blocks."""
        for process in self.processes:
            while (message := process.receive()) is not None:
                yield from message.records
            if not process.alive and process.fileno in self._watched:
                self._watched.remove(process.fileno)
                self._epoll.unregister(process.fileno)

    def fileno(self) -> int:
        """Readable when one of them has sent something."""
        return self._epoll.fileno()

    def wait(self, seconds: float) -> None:
        """Wait until one of them has sent something, at most so long."""
        self._epoll.poll(seconds)

    @property
    def starting(self) -> bool:
        """Whether one of them is not ready yet, and may still become so."""
        return any(process.alive and process.clock is None for process in self.processes)

    @property
    def ready(self) -> bool:
        """Whether each of them is there and ready."""
        return all(process.alive and process.clock is not None for process in self.processes)

    def idle(self, schedule: int) -> bool:
        """Whether those that live have nothing in flight and follow the schedule of this number."""
        for counters, process in zip(self._boards, self.processes, strict=True):
            cells = counters.cells
            if process.alive and not (cells[Cell.SCHEDULE] == schedule and cells[Cell.IDLE]):
                return False
        return True

    def silent(self, now_ns: int) -> dict[int, str]:
        """Of each that lives and reports nothing, by its process id, why; it is remembered."""
        return self._silent.update(self.processes, self._boards, now_ns)

    def readings(self, now_ns: int, ever: bool = False) -> list[WorkerCounters]:
        """What each shows at this moment; of ended ones what they showed last. ever: one counts as
        silent that was so at any time."""
        if self._closed:
            return self._last
        silent = self.silent(now_ns)
        if ever:
            silent = {**self._silent.ever, **silent}
        return [
            WorkerCounters(counters.copy(), process.trouble, silent.get(process.pid, ""))
            for counters, process in zip(self._boards, self.processes, strict=True)
        ]

    @property
    def clock(self) -> str:
        """Where moments come from: "kernel" or "user space"."""
        kernel = all(process.clock == "kernel" for process in self.processes)
        return "kernel" if kernel else "user space"

    @property
    def troubles(self) -> list[str]:
        """Why some are gone, a line for each."""
        return [process.trouble for process in self.processes if process.trouble]
