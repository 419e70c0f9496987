"""The state directory: private, whole, and never the reason for a crash."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmtop import UsageError
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.host.private_files import write_whole
from llmtop.engines.state.state_directory import NameBusy, StateDirectory, StateError
from llmtop.values import replace

RECORD = EngineRecord(
    spec=LaunchSpec("fake", "a", "tiny", "127.0.0.1", 8000, ("vllm",), (0, 1), ("--x", "1")),
    command=("vllm", "serve"),
    env_names=("LLMTOP_LIVE_SOCKET",),
    pid=4711,
    start_ticks=123456789,
    boot_id="boot",
    url="http://127.0.0.1:8000",
    log_path="/tmp/engine.log",
    live_socket=None,
    started_at=1795326110.123457,
)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "deep" / "state", tmp_path / "sockets")


def modes(root: Path) -> Iterator[int]:
    for path in (root, *root.rglob("*")):
        yield path.stat().st_mode & 0o077


def test_a_record_is_kept_as_it_is_and_for_its_owner_alone(state: StateDirectory) -> None:
    state.save(RECORD)
    assert state.load("a") == RECORD
    assert state.load("b") is None
    changed = replace(RECORD, ready_at=0.0, exit_code=0, cause="it … ended")
    state.save(changed)
    assert state.load("a") == changed
    assert set(modes(state.root)) == {0}
    assert os.listdir(state.folder("a")) == ["record.json"]


def test_a_folder_that_others_may_read_is_closed(state: StateDirectory) -> None:
    state.root.mkdir(parents=True, mode=0o755)
    state.save(RECORD)
    assert set(modes(state.root)) == {0}


def test_fields_of_a_later_version_of_this_schema_are_ignored(state: StateDirectory) -> None:
    state.save(RECORD)
    path = state.folder("a") / "record.json"
    data = msgspec.json.decode(path.read_bytes())
    assert data["schema"] == 1
    data["record"]["colour"] = "blue"
    path.write_bytes(msgspec.json.encode(data))
    assert state.load("a") == RECORD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b'{"schema": 1}', "damaged"),
        (b'{"schema": 1, "record": {"spec": 3}}', "damaged"),
        (b'{"schema": 2, "record": {}}', "newer llmtop"),
    ],
)
def test_a_record_that_cannot_be_used_is_reported_and_left(
    state: StateDirectory, content: bytes, message: str
) -> None:
    state.save(RECORD)
    path = state.make_folder("b") / "record.json"
    path.write_bytes(content)
    with pytest.raises(StateError, match=message):
        state.load("b")
    records, problems = state.scan()
    assert records == [RECORD]
    assert [problem.name for problem in problems] == ["b"]
    assert message in problems[0].message and str(path) in problems[0].hint
    assert path.read_bytes() == content


def test_a_record_that_was_copied_to_another_name_is_reported(state: StateDirectory) -> None:
    state.save(RECORD)
    copy = state.make_folder("b") / "record.json"
    copy.write_bytes((state.folder("a") / "record.json").read_bytes())
    with pytest.raises(StateError, match="another engine"):
        state.load("b")


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "x" * 41, "a b", "ä", "-f", "a\n"])
def test_names_that_could_be_paths_are_refused(state: StateDirectory, name: str) -> None:
    with pytest.raises(UsageError):
        state.folder(name)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = StateDirectory(tmp_path / "file" / "state", tmp_path)
    with pytest.raises(StateError, match=r"state cannot be written: (not a dir|file exists)"):
        state.save(RECORD)
    assert state.scan() == ([], [])
    assert state.startups.seconds("vllm x") is None
    state.startups.remember("vllm x", 1.0)


def test_a_write_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_whole(path, b"former")
    # The spare file's place leads to a device that is always full.
    spare = f"record.json.{os.getpid()}.{threading.get_ident()}.tmp"
    (tmp_path / spare).mkdir()
    with pytest.raises(OSError):
        write_whole(path, b"new")
    assert path.read_bytes() == b"former"


def test_a_name_has_one_holder_at_a_time(state: StateDirectory) -> None:
    with (
        state.lock("a"),
        state.lock("b"),
        pytest.raises(NameBusy, match="another llmtop is starting"),
        state.lock("a"),
    ):
        pass
    with state.lock("a"):
        pass


def test_a_lock_is_waited_for(state: StateDirectory) -> None:
    held, waiting = threading.Event(), threading.Event()

    def hold() -> None:
        with state.lock("a"):
            held.set()
            waiting.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    threading.Timer(0.1, waiting.set).start()
    with state.lock("a", wait_s=30):
        pass
    holder.join()


def test_a_socket_can_be_bound_where_it_is_said_to_go(state: StateDirectory) -> None:
    path = state.socket_path("a")
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    elsewhere = StateDirectory(state.root / "other", path.parent)
    assert elsewhere.socket_path("a") != path


def test_a_socket_path_that_is_too_long_goes_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not in tmp_path: its name can be too long for a socket, too.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        state = StateDirectory(tmp_path / "s", tmp_path / ("x" * 100))
        (tmp_path / ("x" * 100)).mkdir()
        found = state.socket_path("a")
        assert found.parent == Path(short) / f"llmtop-{os.getuid()}"
        assert len(os.fsencode(found)) <= 107


def test_a_socket_folder_that_is_not_ours_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / "trap"
    trap.mkdir()
    (tmp_path / f"llmtop-{os.getuid()}").symlink_to(trap)
    state = StateDirectory(tmp_path / "s", tmp_path / "missing" / "llmtop")
    with pytest.raises(StateError, match="no private folder"):
        state.socket_path("a")
    assert os.listdir(trap) == []


def test_start_up_times_are_remembered_by_key(state: StateDirectory) -> None:
    state.make_folder("a")
    assert state.startups.seconds("vllm tiny") is None
    state.startups.remember("vllm tiny", 12.5)
    state.startups.remember("vllm large", 99.0)
    assert state.startups.seconds("vllm tiny") == 12.5
    assert state.startups.seconds("sglang tiny") is None
    assert state.startups.phases("vllm tiny") == {}
    state.startups.remember("vllm tiny", 12.5, {"weights": 2.0})
    state.startups.remember("vllm tiny", 12.5)  # an adopted start, whose phases nobody timed
    assert state.startups.phases("vllm tiny") == {"weights": 2.0}
    assert state.startups.seconds("vllm large") == 99.0
    (state.root / "startups.json").write_bytes(b"\xff")
    assert state.startups.seconds("vllm tiny") is None
    state.startups.remember("vllm tiny", 13.5)
    assert state.startups.seconds("vllm tiny") == 13.5
