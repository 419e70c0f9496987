"""Faults around an engine, seen through the real command line: full disks, broken sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.llmtop_process import Done, Home, command, free_port
from tests.tiers import first

pytestmark = pytest.mark.process

# Where a file may grow no further the kernel answers as on a full disk, with EFBIG for ENOSPC.
LIMITED = """
import os, resource, sys
# Python would keep the half of a compiled module that fits, for every later command.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path)
    yield home
    home.stop_all()


def start(home: Home, limit: int | None = None) -> Done:
    """``llmtop run sim``; limit: bytes that any file may grow to, for llmtop and for the engine."""
    argv = command(
        *("run", "sim", "--detach", "--json", "--name", "one", "--port", str(free_port())),
        *("--", "--startup-s", "0.2"),
    )
    if limit is not None:
        argv = [sys.executable, "-c", LIMITED, str(limit), *argv]
    done = subprocess.run(
        argv, env=home.environ, capture_output=True, text=True, timeout=60, cwd=home.folder
    )
    return Done(done.returncode, done.stdout, done.stderr)


def folder(home: Home) -> Path:
    return home.folder / "state" / "llmtop" / "engines" / "one"


def engines(home: Home) -> list[dict[str, Any]]:
    return list(home.run("ps", "--json").json["engines"])


def writers(log: Path) -> list[int]:
    """Pids of all processes whose output is this log."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "fd/1") == str(log):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_no_room_for_the_state_starts_nothing(home: Home) -> None:
    done = start(home, limit=0)
    assert done.code == 1
    assert "llmtop's state cannot be written" in done.err and "free some space" in done.err
    assert "Traceback" not in done.err
    assert engines(home) == [] and writers(folder(home) / "engine.log") == []


def test_no_room_for_the_log_starts_nothing(home: Home) -> None:
    folder(home).mkdir(parents=True, mode=0o700)
    log = folder(home) / "engine.log"
    log.write_bytes(b"an earlier run\n" * 4000)  # as long as the limit, so it takes no more
    done = start(home, limit=log.stat().st_size)
    assert done.code == 1
    assert "engine.log cannot be written" in done.err and "Traceback" not in done.err
    assert engines(home) == [] and writers(log) == []
    assert log.read_bytes() == b"an earlier run\n" * 4000


def test_a_log_that_is_full_does_not_end_its_engine_nor_make_it_look_dead(home: Home) -> None:
    done = start(home, limit=8192)
    assert done.code == 0, done.err
    log = folder(home) / "engine.log"
    with log.open("ab") as other:
        other.write(b"x\n" * 8192)  # from here on the engine's own writes fail
    assert home.run("load", "one", "-c", "2", "-d", "1").code == 0
    (found,) = engines(home)
    assert (found["state"], found["pid"]) == ("ready", done.json["pid"])
    assert home.run("stop", "one").code == 0
    assert writers(log) == [] and engines(home)[0]["state"] == "stopped"


def silent(visitor: socket.socket) -> None:
    visitor.recv(1 << 16)
    visitor.recv(1)  # until it gives up


def nonsense(visitor: socket.socket) -> None:
    visitor.recv(1 << 16)
    visitor.sendall(b'\x1b[2J{"ok": [\xff\xfe]\n' * 50)


def hangs_up(visitor: socket.socket) -> None:
    visitor.recv(1 << 16)


@contextmanager
def answering(path: Path, how: Callable[[socket.socket], None] | None) -> Iterator[None]:
    """Something else in the place of an engine's live-option socket meanwhile; None: nothing."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as door:
        if how is not None:
            door.bind(str(path))
            door.listen()
        door.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                try:
                    visitor, _ = door.accept()
                except OSError:
                    continue
                with visitor:
                    how(visitor) if how is not None else None

        thread = threading.Thread(target=serve if how is not None else over.wait)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)
            aside.rename(path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with one engine, which all of the tests below find in order and leave in order."""
    home = Home.make(tmp_path_factory.mktemp("home"))
    done = start(home)
    assert done.code == 0, done.err
    yield home
    home.stop_all()


@pytest.mark.parametrize(
    ("how", "words"),
    first(
        2,
        [
            (None, "gone"),
            (nonsense, "sends invalid data"),
            (silent, "did not answer"),
            (hangs_up, "gone (it closed the connection"),
        ],
        2,
    ),
    ids=["gone", "nonsense", "silent", "hangs up"],
)
def test_a_live_socket_that_fails_is_said_and_takes_nothing_else_down(
    shared: Home, how: Callable[[socket.socket], None] | None, words: str
) -> None:
    record = json.loads((folder(shared) / "record.json").read_bytes())["record"]
    with answering(Path(record["live_socket"]), how):
        done = shared.run("set", "one", "max_num_seqs=4")
        assert done.code == 1
        assert words in done.err and "\x1b" not in done.err and "Traceback" not in done.err
        sample = shared.run("once", "one", "--json", "--window", "0.5")
        assert sample.code == 0 and sample.json["running"] == 0
        (found,) = engines(shared)
        assert (found["state"], found["pid"]) == ("ready", record["pid"])
    # Nothing is held against it afterwards.
    assert shared.run("set", "one", "max_num_seqs=4").code == 0
