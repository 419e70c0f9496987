"""The live-option socket inside an engine: its server and its tunables."""

from __future__ import annotations

import importlib
import json
import logging
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmtop.engines.vllm.adapter import PLUGIN_FOLDERS

LOG = logging.getLogger("quiet")


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """The modules tunables and socket_server, as an engine imports them: from PYTHONPATH."""
    monkeypatch.syspath_prepend(str(PLUGIN_FOLDERS[1]))
    tunables = importlib.import_module("llmtop_live.tunables")
    yield tunables, importlib.import_module("llmtop_live.socket_server")
    for name in [name for name in sys.modules if name.startswith("llmtop_live")]:
        del sys.modules[name]


@pytest.fixture
def server(live: tuple[ModuleType, ModuleType]) -> Any:
    return live[1]


@pytest.fixture
def tunables(live: tuple[ModuleType, ModuleType]) -> Any:
    option = live[0].TunableOption("max_num_seqs", 8, 1, 8, "live, up to the launch value")
    return live[0].Tunables("vllm", "1.0", 4711, [option], lambda: (5, 2), clock=lambda: 99.0)


def step(tunables: Any) -> None:
    """What an engine does at the head of a step."""
    tunables.settle(tunables.take(), again=False)


@pytest.fixture
def stepping(tunables: Any) -> Iterator[None]:
    """An engine's thread at work."""
    done = threading.Event()

    def engine() -> None:
        while not done.wait(0.001):
            if tunables.attention:
                step(tunables)

    thread = threading.Thread(target=engine)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.fixture
def visit(tunables: Any, server: Any, tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    """Opens the server in a folder of its own; each call connects."""
    (tmp_path / "s").mkdir(mode=0o700)
    path = tmp_path / "s" / "live"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # left behind by an engine that was killed
    visitors: list[socket.socket] = []
    server.SocketServer(str(path), tunables, LOG).open()

    def come_in() -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            connection = socket.socket(socket.AF_UNIX)
            visitors.append(connection)
            connection.settimeout(10)
            try:
                connection.connect(str(path))
                return connection
            except OSError:
                assert time.monotonic() < deadline, "the server did not open"
                time.sleep(0.01)

    yield come_in
    for connection in visitors:
        connection.close()


def test_requests_on_one_connection_while_the_engine_steps(
    visit: Callable[[], socket.socket], stepping: None, tmp_path: Path
) -> None:
    with visit() as connection, connection.makefile("rwb") as lines:
        lines.write(b'nonsense\n{"op": "set", "changes": {"max_num_seqs": 3}, "by": "ann"}\n')
        lines.write(b'{"op": "get"}\n')
        lines.flush()
        wrong, changed, state = (json.loads(lines.readline()) for _ in range(3))
    assert wrong == {"ok": False, "protocol": 1, "error": "not JSON"}
    (change,) = changed["changes"]
    assert (change["from"], change["to"], change["outcome"]) == (8, 3, "applied")
    assert state["options"]["max_num_seqs"]["value"] == 3
    assert (state["running"], state["waiting"], state["pid"]) == (5, 2, 4711)
    (past,) = state["history"]
    assert (past["by"], past["time"], past["from"], past["to"]) == ("ann", 99.0, 8, 3)
    assert (tmp_path / "s" / "live").stat().st_mode & 0o777 == 0o600


def test_a_connection_that_waits_holds_up_no_other(visit: Callable[[], socket.socket]) -> None:
    with visit() as waiting, visit() as asking, asking.makefile("rwb") as lines:
        waiting.sendall(b'{"op": "set", "changes": {"max_num_seqs": 3}, "wait_s": 30}\n')
        pending = None
        while pending is None:  # until it has been heard
            lines.write(b'{"op": "get"}\n')
            lines.flush()
            pending = json.loads(lines.readline())["options"]["max_num_seqs"]["pending"]
        assert pending == 3


def test_a_line_without_an_end_costs_64_kib_and_the_connection(
    visit: Callable[[], socket.socket],
) -> None:
    with visit() as connection, connection.makefile("rb") as lines:
        connection.sendall(b"x" * (64 * 1024 + 1))
        assert json.loads(lines.readline())["error"] == "line longer than 64 KiB"
        assert lines.readline() == b""


def test_of_too_many_connections_a_silent_one_goes(
    visit: Callable[[], socket.socket], server: Any
) -> None:
    inside = [visit() for _ in range(server.CONNECTIONS)]
    for connection in inside:
        connection.sendall(b"x\n")
        assert connection.recv(1000)
    with visit() as late:
        late.sendall(b"x\n")
        assert late.recv(1000)
    gone, _, _ = select.select(inside, [], [], 10)
    assert [one.recv(1000) for one in gone] == [b""]


def test_a_folder_or_a_path_that_is_not_ours_is_refused(server: Any, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "s")
    (tmp_path / "s" / "file").write_text("precious")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s" / "taken"))
        other.listen()
        for place, why in (
            ("open/live", "open to others"),
            ("link/live", "not a folder"),
            ("s/file", "not a socket"),
            ("s/taken", "another process listens"),
        ):
            with pytest.raises(server.SocketError, match=why):
                server.listen(str(tmp_path / place))
    assert (tmp_path / "s" / "file").read_text() == "precious"


def test_a_missing_folder_is_made_for_us_alone(server: Any, tmp_path: Path) -> None:
    server.listen(str(tmp_path / "new" / "live")).close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_door_that_cannot_be_opened_is_a_line_in_the_log(
    tunables: Any, server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.SocketServer(str(tmp_path / ("x" * 200)), tunables, LOG).open().join(10)
    assert "no live options" in caplog.text


@pytest.mark.parametrize(
    "line, error",
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"9" * 60_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"op": "exit"}', "unknown op; there are get and set"),
        (b'{"op": ["get"]}', "unknown op; there are get and set"),
        (b'{"op": "set"}', "changes must be an object with 1 to 16 options"),
        (b'{"op": "set", "changes": {}}', "changes must be an object with 1 to 16 options"),
        (
            b'{"op": "set", "changes": {"a": 1}, "evict": 1}',
            "evict must be true or false, by must be text",
        ),
        (
            b'{"op": "set", "changes": {"a": 1}, "wait_s": NaN}',
            "wait_s must be a number of seconds",
        ),
    ],
)
def test_nonsense_is_answered_with_an_error(
    tunables: Any, server: Any, line: bytes, error: str
) -> None:
    assert server.answer(tunables, line, LOG) == {"ok": False, "protocol": 1, "error": error}


@pytest.mark.parametrize("value", ["true", "2.5", '"2"', "null", "[2]", "1e400"])
def test_a_value_that_is_no_whole_number_is_refused(tunables: Any, server: Any, value: str) -> None:
    line = b'{"op": "set", "changes": {"max_num_seqs": %s}}' % value.encode()
    (change,) = server.answer(tunables, line, LOG)["changes"]
    assert (change["outcome"], change["reason"]) == ("refused", "must be a whole number")
    assert tunables.state()["history"] == []


def test_an_unknown_option_is_refused_with_those_there_are(tunables: Any, server: Any) -> None:
    line = json.dumps({"op": "set", "changes": {"\x1b[31m" + "x" * 9999: 1}}).encode()
    (change,) = server.answer(tunables, line, LOG)["changes"]
    assert "it has: max_num_seqs" in change["reason"]
    assert change["option"].isprintable()
    assert len(change["option"]) <= 64


def test_history_keeps_fifty_and_an_answer_stays_below_64_kib(tunables: Any, server: Any) -> None:
    for turn in range(120):
        tunables.submit({"max_num_seqs": 1 + turn % 8}, False, "\U0001f642" * 500, 0)
        if turn % 3 == 0:
            step(tunables)
    state = tunables.state()
    assert len(state["history"]) == 50
    assert len(server._encode({"ok": True, **state})) < 64 * 1024


def test_counts_that_cannot_be_had_are_not_known(live: tuple[ModuleType, ModuleType]) -> None:
    tunables = live[0].Tunables("vllm", "1.0", 1, [], lambda: 1 // 0)
    assert (tunables.state()["running"], tunables.state()["waiting"]) == (None, None)
