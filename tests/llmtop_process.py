"""Runs the real command line as a person's shell would, in a home of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from msgspec import Struct, field

from tests.command_server import CommandServer, fits
from tests.started import RUN

ROOT = Path(__file__).resolve().parent.parent


class Done(Struct, frozen=True):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as the one JSON document that it must be."""
        return json.loads(self.out)


class Home(Struct, frozen=True):
    """Folders for state, sockets and configuration that no other test shares."""

    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    path: tuple[Path, ...] = ()

    @classmethod
    def make(
        cls, folder: Path, extra: Mapping[str, str] | None = None, path: tuple[Path, ...] = ()
    ) -> Home:
        """Prepare the folders. extra: more environment for every command; path: of Python."""
        for name in ("state", "config"):
            (folder / name).mkdir(mode=0o700)
        return cls(folder, extra or {}, path)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every command in this home."""
        kept = ("PATH", "LANG", "LC_ALL", "HOME", "VIRTUAL_ENV", RUN)
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "LLMTOP_HISTORY": "off",  # a process more for each test; those about it turn it on
            "PYTHONPATH": os.pathsep.join(str(one) for one in (ROOT, *self.path)),
            **self.extra,
        }

    def run(self, *args: str, timeout: float = 240.0, stdin: str = "") -> Done:
        """Run ``llmtop ARGS`` to its end; where it is after ``timeout`` is told by its stacks."""
        if not self.path and fits(self.extra):
            return self._forked(args, timeout, stdin)
        return self._started(args, timeout, stdin)

    def _forked(self, args: tuple[str, ...], timeout: float, stdin: str) -> Done:
        """In a process that has imported llmtop already."""
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            streams = [file.fileno() for file in (given, out, err)]
            running = _server().begin(args, self.folder, self.environ, streams)
            code = None
            try:
                code = running.wait(timeout)
                if code is None:
                    running.send_signal(signal.SIGABRT)
                    code = running.wait(10)
            finally:
                late = code is None
                if late:
                    running.send_signal(signal.SIGKILL)
                    code = running.wait()
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        assert code is not None and code != -signal.SIGABRT, (
            f"{args} took more than {timeout:g} s:\n{said[1]}"
        )
        return Done(code, *said)

    def _started(self, args: tuple[str, ...], timeout: float, stdin: str) -> Done:
        python, *rest = command(*args)
        with subprocess.Popen(
            [python, "-X", "faulthandler", *rest],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                _, err = process.communicate()
                raise AssertionError(f"{args} took more than {timeout:g} s:\n{err}") from None
            except BaseException:
                process.kill()
                raise
        return Done(process.returncode, out, err)

    def url(self, engine: str) -> str:
        """Where an engine listens."""
        (found,) = [e for e in self.run("ps", "--json").json["engines"] if e["name"] == engine]
        return str(found["url"])

    def stop_all(self) -> None:
        """Stop every engine that is left."""
        for engine in self.run("ps", "--json").json["engines"]:
            self.run("stop", engine["name"], "--grace", "2")


@cache
def _server() -> CommandServer:
    """One for each process that runs tests."""
    return CommandServer({**os.environ, "PYTHONPATH": str(ROOT)})


# Below those that the kernel gives to connections: one of these could be taken before it is used.
# The workers of a run begin 1,000 ports apart. They have one parent, another run has another.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.count(_WORKER * 1000 + os.getppid() % 1000)


def free_port() -> int:
    """A port that nobody had a moment ago; the engines' usual ones are raced for by other tests."""
    while True:
        port = 20_000 + next(_PORTS) % 12_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def demo(*args: str) -> list[str]:
    """The argument vector of ``llmtop demo ARGS`` on a port of its own."""
    return command("demo", "--port", str(free_port()), *args)


@contextmanager
def home_with_engine(folder: Path, name: str, *flags: str) -> Iterator[Home]:
    """A home in which a simulated engine of this name runs; flags: of the simulator."""
    home = Home.make(folder)
    started = home.run(
        *("run", "sim", "--detach", "--name", name, "--port", str(free_port()), "--", *flags)
    )
    assert started.code == 0, started.err
    yield home
    home.stop_all()


def command(*args: str) -> list[str]:
    """The argument vector of ``llmtop ARGS``."""
    return [sys.executable, "-m", "llmtop", *args]
