"""The owner's side of one worker process: starts it, exchanges messages, ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from llmtop import UsageError
from llmtop.interpreter import for_own_code
from llmtop.loadgen.workers.messages import (
    MAX_PACKET,
    Ready,
    Records,
    Retarget,
    Setup,
    Steer,
    WorkerFailed,
    encode,
    to_owner,
)
from llmtop.printable import clean

SOCKET_BUFFER = 1 << 20  # bytes a worker can send before its owner reads: about 5,000 records


class WorkerProcess:
    """One worker. memory: file descriptor of the shared memory. offset: of its counters there.

    trouble: why the worker has ended; "" while it is alive. clock, limit: see ``Ready``; None until
    it is ready. Raises OSError if the process cannot be started.
    """

    def __init__(self, memory: int, offset: int) -> None:
        own_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (own_end, child_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self.trouble = ""
        self.clock: str | None = None
        self.limit: int | None = None
        self._socket = own_end
        self._ended = False
        try:
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # do not import from the operator's current folder
                    "-m",
                    "llmtop.loadgen.workers.worker",
                    str(child_end.fileno()),
                    str(memory),
                    str(offset),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(child_end.fileno(), memory),
                env={**os.environ, **for_own_code(os.environ)},
                start_new_session=True,  # only the owner handles Ctrl-C at the terminal
            )
        except BaseException:
            own_end.close()
            raise
        finally:
            child_end.close()
        own_end.setblocking(False)

    @property
    def fileno(self) -> int:
        """A file descriptor that is readable when ``receive`` has something to read."""
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the worker is not known to have ended."""
        return not self.trouble and not self._ended

    def send(self, message: Setup | Steer | Retarget, files: Sequence[int] = ()) -> None:
        """Send a message, with file descriptors. If the worker has ended, set ``trouble``.

        Raises UsageError if the message is too long, because of a name, a shape or a schema.
        """
        if not self.alive:
            return
        packet = encode(message)
        if len(packet) > MAX_PACKET:
            raise UsageError(
                f"the set-up of the load has {len(packet):,} bytes, above {MAX_PACKET:,}",
                "use a shorter model name, shape or JSON schema",
            )
        try:
            if files:
                socket.send_fds(self._socket, [packet], files)
            else:
                self._socket.send(packet)
        except OSError:
            self._handle_end()

    def receive(self) -> Records | None:
        """The next records; None if there are none now. Also handles ``Ready`` and the end."""
        while self.alive:
            try:
                packet = self._socket.recv(MAX_PACKET)
            except BlockingIOError:
                return None
            except OSError:
                packet = b""
            if not packet:
                self._handle_end()
                return None
            match to_owner(packet):
                case Records() as records:
                    return records
                case Ready(clock, limit):
                    self.clock, self.limit = clock, limit
                case WorkerFailed(message, hint):
                    self.trouble = clean(f"{message}; {hint}" if hint else message)
        return None

    def hang_up(self) -> None:
        """Close the socket, which ends the worker."""
        self._ended = True
        self._socket.close()

    def end(self, grace_s: float) -> None:
        """Close the socket and wait; kill the worker after ``grace_s`` seconds."""
        self.hang_up()
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stderr is not None
        self._child.stderr.close()

    def _handle_end(self) -> None:
        # The socket closes shortly before the process ends. A worker that does not end after that
        # hangs, and is killed.
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        assert self._child.stderr is not None
        os.set_blocking(self._child.stderr.fileno(), False)
        words = b""
        with suppress(OSError):
            words = self._child.stderr.read(64 * 1024) or b""
        last = words.decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.trouble = clean(f"a load worker ended ({how}){': ' if last else ''}{last}")
