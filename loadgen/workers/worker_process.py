"""One worker process from outside: starts it, sends to it, watches it, ends it."""

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

SOCKET_BUFFER = 1 << 20  # what a worker can send before its owner must read: some 5,000 records


class WorkerProcess:
    """One worker. memory: file descriptor of the shared memory, offset: where its counters begins.

    trouble: why it is gone, "" while it lives. clock, limit: None until it is ready.
    """

    def __init__(self, memory: int, offset: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self.trouble = ""
        self.clock: str | None = None
        self.limit: int | None = None
        self._socket = ours
        self._ended = False
        try:
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # the current folder is the operator's, not a place to import from
                    "-m",
                    "llmtop.loadgen.workers.worker",
                    str(theirs.fileno()),
                    str(memory),
                    str(offset),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(), memory),
                env={**os.environ, **for_own_code(os.environ)},
                start_new_session=True,  # Ctrl-C at the terminal is the owner's business
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)

    @property
    def fileno(self) -> int:
        """Readable when there is something to ``receive``."""
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """It has not been found gone."""
        return not self.trouble and not self._ended

    def send(self, message: Setup | Steer | Retarget, files: Sequence[int] = ()) -> None:
        """Say something; a worker that is gone is noticed, not raised. files: handed over too.

        Raises UsageError for what is longer than a worker takes: a name, a shape, a schema.
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
            self._gone()

    def receive(self) -> Records | None:
        """The next records, None when there are none now. Learns of readiness and of its end."""
        while self.alive:
            try:
                packet = self._socket.recv(MAX_PACKET)
            except BlockingIOError:
                return None
            except OSError:
                packet = b""
            if not packet:
                self._gone()
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
        """Hang up and wait; kill it if it has not gone after ``grace_s``."""
        self.hang_up()
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stderr is not None
        self._child.stderr.close()

    def _gone(self) -> None:
        # Its socket closes a moment before it can be waited for; a worker that lives on without
        # one is stuck and of no use.
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
