"""A worker process: drives its share of the load, shows itself on a board, sends records home.

Started by ``process.Process`` as ``python -m llmtop.loadgen.worker SOCKET MEMORY OFFSET``: two
inherited file descriptors and a place in the memory. It ends when its socket does, so that nothing
is left behind when its owner is killed.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import socket
import sys
import time
import traceback
from collections import deque

from llmtop import LlmtopError
from llmtop.loadgen.board import SIZE, Board, Cell
from llmtop.loadgen.course import read_shape
from llmtop.loadgen.dataset import Entry, unpack
from llmtop.loadgen.driver import Driver
from llmtop.loadgen.plan import Target
from llmtop.loadgen.prompts import Bodies
from llmtop.loadgen.results import MAX_GAPS, RequestRecord
from llmtop.loadgen.transport import Transport, address
from llmtop.loadgen.wire import (
    MAX_PACKET,
    Aim,
    Broke,
    Ready,
    Records,
    Setup,
    Steer,
    encode,
    to_worker,
)

BEAT_NS = 100_000_000  # how often CPU time and run delay are shown
LOOK_NS = 10_000_000  # how often it is asked whether all is done
MAX_OUTBOX = 200_000  # records that wait for an owner that does not read; beyond, they are counted
_BATCH = 200  # records in a packet: some 40 kB, and at most 41 kB of gaps
_SPARE_FILES = 32
_MOST_STREAMS = 16_384


class Worker:
    """The process's whole state. control: packets from and to the owner."""

    def __init__(self, control: socket.socket, board: Board) -> None:
        self._control, self._board = control, board
        self._outbox: deque[RequestRecord] = deque()
        self._steers: deque[Steer | Aim] = deque()
        self._ended = False
        self._next_look = 0

    def run(self) -> None:
        """Wait for the set-up, then drive until the owner hangs up."""
        packet, files, _, _ = socket.recv_fds(self._control, MAX_PACKET, 1)
        if not packet:
            return
        setup = to_worker(packet)
        assert isinstance(setup, Setup)
        limit = _raise_file_limit()
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
        transport = make_transport(setup.target, self._board)
        driver = Driver(
            transport,
            self._board,
            bodies,
            self._keep,
            zero_ns=setup.zero_ns,
            timeout_s=setup.timeout_s,
            limit=limit,
            index=setup.index,
            count=setup.count,
            gaps=setup.gaps,
        )
        self._control.setblocking(False)
        transport.watch(self._control.fileno(), self._listen)
        # A collection stops every stream at once, for as long as it takes to walk all objects.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._look(time.monotonic_ns(), driver)  # so that CPU time has a beginning
        self._control.send(encode(Ready(transport.clock, limit)))
        try:
            self._loop(transport, driver)
        finally:
            transport.close()

    def _loop(self, transport: Transport, driver: Driver) -> None:
        while not self._ended:
            while self._steers:
                message = self._steers.popleft()
                if isinstance(message, Aim):
                    transport.aim(message.target)
                else:
                    driver.steer(message.course)
            # Before the board is renewed: who reads there that a request is over has its record.
            self._flush()
            until = driver.tick()
            self._flush()
            now = time.monotonic_ns()
            if now >= self._next_look:
                self._next_look = now + LOOK_NS
                self._look(now, driver)
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
        if isinstance(message, Steer | Aim):
            self._steers.append(message)

    def _keep(self, record: RequestRecord) -> None:
        if len(self._outbox) >= MAX_OUTBOX:
            self._board.cells[Cell.LOST] += 1
        else:
            self._outbox.append(record)

    def _flush(self) -> None:
        while self._outbox:
            batch: list[RequestRecord] = []
            gaps = 0
            while self._outbox and len(batch) < _BATCH and gaps < MAX_GAPS:
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

    def _look(self, now: int, driver: Driver) -> None:
        cells = self._board.cells
        cells[Cell.IDLE] = int(driver.idle and not self._outbox)
        if now < cells[Cell.BEAT] + BEAT_NS:
            return
        cells[Cell.CPU] = time.process_time_ns()
        cells[Cell.RUN_DELAY] = run_delay_ns()
        cells[Cell.BEAT] = now


def _entries(files: list[int], size: int) -> list[Entry]:
    """The dataset that came along with the set-up. Its workers read the same memory."""
    for file in files:
        packed = os.pread(file, size, 0)
        os.close(file)
        return unpack(packed)
    return []


def make_transport(target: Target, board: Board) -> Transport:
    """The transport that a target's URL calls for."""
    if address(target.url).secure:
        from llmtop.loadgen.fallback import HttpxTransport  # a third of a second of imports

        return HttpxTransport(target, board)
    from llmtop.loadgen.sockets import SocketTransport

    return SocketTransport(target, board)


def run_delay_ns() -> int:
    """Nanoseconds that this process's main thread was runnable but had no core; 0 if not told."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _raise_file_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_STREAMS + _SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(1, min(files - _SPARE_FILES, _MOST_STREAMS))


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    control_fd, memory_fd, offset = (int(argument) for argument in arguments)
    control = socket.socket(fileno=control_fd)
    memory = mmap.mmap(memory_fd, 0)
    board = Board(memoryview(memory)[offset : offset + SIZE])
    try:
        Worker(control, board).run()
    except LlmtopError as error:
        _say(control, Broke(error.message, error.hint))
    except Exception as error:
        _say(control, Broke(f"a load worker failed: {error!r}"[:500]))
        traceback.print_exc()
        return 1
    return 0


def _say(control: socket.socket, words: Broke) -> None:
    control.setblocking(True)
    control.settimeout(1.0)
    try:
        control.send(encode(words))
    except OSError:
        return  # nobody listens any more


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
