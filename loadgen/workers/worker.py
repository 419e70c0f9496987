"""A worker process: sends its share of the load, counts in shared memory, returns records.

``worker_process.WorkerProcess`` starts it as ``python -m llmtop.loadgen.workers.worker SOCKET
MEMORY OFFSET``: two inherited file descriptors and an offset in the memory. It ends when its socket
closes, so that no worker stays when its owner is killed.
"""

from __future__ import annotations

import gc
import mmap
import os
import socket
import sys
import time
import traceback
from collections import deque

from llmtop import LlmtopError
from llmtop.loadgen.client.file_limit import raise_limit, streams_of
from llmtop.loadgen.client.transport import Transport, address
from llmtop.loadgen.core.results import MAX_GAPS, RequestRecord
from llmtop.loadgen.statistics.shared_counters import SIZE, Cell, SharedCounters
from llmtop.loadgen.workers.messages import (
    MAX_PACKET,
    Ready,
    Records,
    Retarget,
    Setup,
    Steer,
    WorkerFailed,
    encode,
    to_worker,
)
from llmtop.loadgen.workers.scheduler import Scheduler
from llmtop.loadgen.workload.dataset import Entry, unpack
from llmtop.loadgen.workload.plan import Target
from llmtop.loadgen.workload.prompts import Bodies
from llmtop.loadgen.workload.request_id import RequestIds
from llmtop.loadgen.workload.schedule import read_shape

BEAT_NS = 100_000_000  # interval of publishing CPU time and run delay
IDLE_NS = 10_000_000  # interval of publishing whether the worker is idle
MAX_OUTBOX = 200_000  # records that wait for the owner; further ones are dropped and counted
BATCH = 100  # records in a packet: 30 to 80 kB, and at most 41 kB of gaps


class Worker:
    """The state of the worker process. control: the socket of messages from and to the owner."""

    def __init__(self, control: socket.socket, counters: SharedCounters) -> None:
        self._control, self._counters = control, counters
        self._outbox: deque[RequestRecord] = deque()
        self._steers: deque[Steer | Retarget] = deque()
        self._ended = False
        self._next_publish = 0

    def run(self) -> None:
        """Wait for the set-up, then run until the owner closes the socket."""
        packet, files, _, _ = socket.recv_fds(self._control, MAX_PACKET, 1)
        if not packet:
            return
        setup = to_worker(packet)
        assert isinstance(setup, Setup)
        limit = streams_of(raise_limit())
        bodies = Bodies(
            setup.prompts,
            setup.target,
            setup.seed,
            setup.index,
            setup.count,
            _entries(files, setup.entries),
        )
        if setup.shape:
            read_shape(setup.shape)
        transport = make_transport(setup.target, self._counters)
        scheduler = Scheduler(
            transport,
            self._counters,
            bodies,
            self._queue,
            zero_ns=setup.zero_ns,
            timeout_s=setup.timeout_s,
            limit=limit,
            index=setup.index,
            count=setup.count,
            gaps=setup.gaps,
            ids=RequestIds(setup.run, setup.index),
            rid=setup.target.rid,
        )
        self._control.setblocking(False)
        transport.watch(self._control.fileno(), self._listen)
        # A garbage collection would delay every stream while it visits all objects.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._publish(time.monotonic_ns(), scheduler)  # gives CPU time a start value
        self._control.send(encode(Ready(transport.clock, limit)))
        try:
            self._loop(transport, scheduler)
        finally:
            transport.close()

    def _loop(self, transport: Transport, scheduler: Scheduler) -> None:
        while not self._ended:
            while self._steers:
                message = self._steers.popleft()
                if isinstance(message, Retarget):
                    transport.retarget(message.target)
                else:
                    scheduler.steer(message.schedule)
            # Before the counters change, so that a request counted as ended has its record sent.
            self._flush()
            until = scheduler.tick()
            self._flush()
            now = time.monotonic_ns()
            if now >= self._next_publish:
                self._next_publish = now + IDLE_NS
                self._publish(now, scheduler)
            transport.turn(until)

    def _listen(self) -> None:
        try:
            packet = self._control.recv(MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._ended = True
            return
        message = to_worker(packet)
        if isinstance(message, Steer | Retarget):
            self._steers.append(message)

    def _queue(self, record: RequestRecord) -> None:
        if len(self._outbox) >= MAX_OUTBOX:
            self._counters.cells[Cell.LOST] += 1
        else:
            self._outbox.append(record)

    def _flush(self) -> None:
        while self._outbox:
            batch: list[RequestRecord] = []
            gaps = 0
            while self._outbox and len(batch) < BATCH and gaps < MAX_GAPS:
                batch.append(self._outbox.popleft())
                gaps += len(batch[-1].gaps_us or ())
            try:
                self._control.send(encode(Records(batch)))
            except BlockingIOError:
                self._outbox.extendleft(reversed(batch))
                return
            except OSError:
                self._ended = True
                return

    def _publish(self, now: int, scheduler: Scheduler) -> None:
        cells = self._counters.cells
        cells[Cell.IDLE] = int(scheduler.idle and not self._outbox)
        if now < cells[Cell.BEAT] + BEAT_NS:
            return
        cells[Cell.CPU] = time.process_time_ns()
        cells[Cell.RUN_DELAY] = run_delay_ns()
        cells[Cell.BEAT] = now


def _entries(files: list[int], size: int) -> list[Entry]:
    """Read the dataset that was sent with the set-up, in memory that all workers share."""
    for file in files:
        packed = os.pread(file, size, 0)
        os.close(file)
        return unpack(packed)
    return []


def make_transport(target: Target, counters: SharedCounters) -> Transport:
    """Make the transport for the scheme of a target's URL."""
    if address(target.url).secure:
        # Imported late: it takes a third of a second.
        from llmtop.loadgen.client.httpx_transport import HttpxTransport

        return HttpxTransport(target, counters)
    from llmtop.loadgen.client.socket_transport import SocketTransport

    return SocketTransport(target, counters)


def run_delay_ns() -> int:
    """Nanoseconds that this process's main thread was runnable but had no core; 0 if not known."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    control_fd, memory_fd, offset = (int(argument) for argument in arguments)
    memory = mmap.mmap(memory_fd, 0)
    counters = SharedCounters(memoryview(memory)[offset : offset + SIZE])
    with socket.socket(fileno=control_fd) as control:
        try:
            Worker(control, counters).run()
        except LlmtopError as error:
            _send_failure(control, WorkerFailed(error.message, error.hint))
        except Exception as error:
            _send_failure(control, WorkerFailed(f"a load worker failed: {error!r}"[:500]))
            traceback.print_exc()
            return 1
    return 0


def _send_failure(control: socket.socket, failure: WorkerFailed) -> None:
    control.setblocking(True)
    control.settimeout(1.0)
    try:
        control.send(encode(failure))
    except OSError:
        return  # the owner has ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
