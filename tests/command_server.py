"""Runs llmtop commands without importing the program for each of them.

A process that has imported llmtop forks itself for each command. The fork is a process of its own,
with the arguments, folder, environment and standard streams of the command, so whatever a command
does to its process, and whatever signals do to it, is as it is for a user. What differs is that the
imports are done: they were most of the CPU time of a short command.

``serve`` runs in the process that forks, ``CommandServer`` in the tests.
"""

from __future__ import annotations

import array
import atexit
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
STREAMS = 3  # standard input, output and error
LARGEST = 256 * 1024  # bytes of a request
NAMES = ("PYTHON", "LD_", "LANG", "LC_", "MALLOC_")  # read by a process as it starts
PARTS = (
    *("llmtop.cli", "llmtop.operations", "llmtop.wording", "llmtop.analysis", "llmtop.config"),
    *("llmtop.diagnosis", "llmtop.loadgen", "llmtop.history", "llmtop.report", "llmtop.regression"),
    *("llmtop.forecast", "llmtop.slo_control", "llmtop.alerts"),
    *(f"llmtop.engines.{room}" for room in ("core", "host", "gpu", "metrics", "logs", "failures")),
    *(f"llmtop.engines.{room}" for room in ("state", "supervision", "tuning", "introspection")),
    # The tables of each engine: their expressions take longest, and ``ps`` needs all of them.
    *(f"llmtop.engines.{kind}" for kind in ("vllm", "sglang", "tensorrt_llm", "simulated")),
)
APART = (".inside", ".__main__", ".plugin", ".simulator")  # programs of their own


class CommandServer:
    """The process that forks. One command at a time for each connection."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.command_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=dict(environ), cwd=ROOT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        atexit.register(self.close)

    def close(self) -> None:
        """End the process; its forks are left to end by themselves."""
        self._mine.close()
        self._process.wait()

    def begin(
        self, args: Sequence[str], folder: Path, environ: Mapping[str, str], streams: Sequence[int]
    ) -> Command:
        """Start a command. streams: descriptors for its standard input, output and error."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wanted = {"args": list(args), "folder": str(folder), "environ": dict(environ)}
        with theirs:
            socket.send_fds(self._mine, [json.dumps(wanted).encode()], [theirs.fileno(), *streams])
        return Command(mine)


class Command:
    """One command that runs."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = int(connection.recv(64))

    def send_signal(self, signum: int) -> None:
        """Send a signal; it has not been reaped as long as ``wait`` was not asked."""
        os.kill(self.pid, signum)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, negative for a signal as in subprocess; None: it still runs."""
        if not select.select([self._connection], [], [], timeout_s)[0]:
            return None
        code = int(self._connection.recv(64))
        self._connection.close()
        return code


def fits(environ: Mapping[str, str]) -> bool:
    """Whether a fork can have this environment: nothing in it is read as a process starts."""
    return not any(name.startswith(NAMES) for name in environ)


def prepare() -> None:
    """Import what commands import."""
    for part in PARTS:
        package = importlib.import_module(part)
        for module in pkgutil.walk_packages(package.__path__, f"{part}."):
            if not any(word in module.name for word in APART):
                importlib.import_module(module.name)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until nobody is left who asks. Returns in a fork: what it is to run."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        for ready in select.select([connection.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, owner = running.pop(ready)
                os.close(ready)
                _, status = os.waitpid(pid, 0)
                with owner:
                    owner.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            data, handles = _received(connection)
            if not data:
                return None
            back, *streams = handles
            pid = os.fork()
            if pid == 0:
                connection.close()
                for handle, (_, owner) in running.items():
                    os.close(handle)
                    owner.close()
                os.close(back)
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                wanted: dict[str, Any] = json.loads(data)
                return wanted
            for stream in streams:
                os.close(stream)
            owner = socket.socket(fileno=back)
            running[os.pidfd_open(pid)] = pid, owner
            owner.send(str(pid).encode())


def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE((1 + STREAMS) * array.array("i").itemsize)
    data, packed, _, _ = connection.recvmsg(LARGEST, room)
    handles = array.array("i")
    for _, _, part in packed:
        handles.frombytes(part[: len(part) - len(part) % handles.itemsize])
    return data, list(handles)


def become(wanted: Mapping[str, Any]) -> None:
    """Be the command."""
    faulthandler.enable()
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    sys.argv = ["llmtop", *wanted["args"]]
    sys.path[0] = wanted["folder"]
    try:
        runpy.run_module("llmtop", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            leave(end.code or 0)
        raise


def leave(code: int) -> NoReturn:
    """End as Python does, except that nothing is taken apart first.

    A short command takes 10 ms of CPU time. To take apart all that was imported takes 45 ms more.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(descriptor: int) -> NoReturn:
    """The process that forks, and each of its forks."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare()
    gc.collect()
    gc.freeze()
    os.set_inheritable(descriptor, False)
    wanted = serve(socket.socket(fileno=descriptor))
    if wanted is not None:
        become(wanted)
    sys.exit()


if __name__ == "__main__":
    main(int(sys.argv[1]))
