"""What another user owns is not obeyed: state, records, journals, sockets, processes, keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.config.engines import read_key
from llmtop.engines.host.ownership import strange_part
from llmtop.engines.host.processes import Processes
from llmtop.engines.host.termination import refuse_foreign
from llmtop.engines.state.state_directory import ForeignState, StateDirectory, StateError
from llmtop.engines.tuning.live_client import LiveClient, LiveError
from tests.engines.state.test_state_directory import RECORD
from tests.llmtop_process import Home

STRANGER = 54321

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, -1, follow_symlinks=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def forged(folder: Path, pid: int) -> None:
    """The record of an engine that is really somebody's process."""
    entry = Processes().entry(pid)
    assert entry is not None
    state = StateDirectory(folder)
    record = RECORD.__class__(
        **{
            **{name: getattr(RECORD, name) for name in RECORD.__struct_fields__},
            "pid": pid,
            "start_ticks": entry.start_ticks,
            "boot_id": Processes().boot_id,
            "log_path": str(state.log_path("a")),
        }
    )
    state.save(record)


@pytest.mark.parametrize(
    "part", ["", "llmtop", "llmtop/engines", "llmtop/engines/a", "llmtop/engines/a/record.json"]
)
@pytest.mark.parametrize("verb", [("stop", "a"), ("restart", "a", "--yes")])
def test_no_process_is_ended_or_started_by_a_forged_record(
    home: Home, victim: subprocess.Popen[bytes], part: str, verb: tuple[str, ...]
) -> None:
    state = home.folder / "state"
    forged(state / "llmtop", victim.pid)
    give_away(state / part)
    done = home.run(*verb)
    assert done.code == 1 and done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("llmtop: ") and f"belongs to the user {STRANGER}" in first
    assert len(rest) <= 1 and "Traceback" not in done.err
    assert victim.poll() is None


def test_a_state_folder_behind_somebodys_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    link = tmp_path / "state"
    link.symlink_to("theirs")
    assert StateDirectory(link).scan() == ([], [])
    give_away(link)
    with pytest.raises(ForeignState, match=str(STRANGER)):
        StateDirectory(link).load("a")
    # The link is ours again; where it leads is not.
    os.chown(link, 0, -1, follow_symlinks=False)
    give_away(tmp_path / "theirs")
    with pytest.raises(ForeignState, match="theirs"):
        StateDirectory(link).make_folder("a")
    (found,) = StateDirectory(link).scan()[1]
    assert str(STRANGER) in found.message


def test_a_record_that_is_a_link_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.save(RECORD)
    path = state.folder("a") / "record.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="cannot be read"):
        state.load("a")


@pytest.mark.parametrize("file", ["restart.json", "loans.json"])
def test_a_forged_journal_is_not_obeyed(home: Home, file: str) -> None:
    state = home.folder / "state" / "llmtop"
    StateDirectory(state).save(RECORD)
    good = json.loads((state / "engines/a/record.json").read_text())["record"]["spec"]
    by = {"pid": 2**30, "start_ticks": 1, "boot_id": "x"}
    intent = {"good": good, "folder": None, "by": by, "began_at": 1.0, "rolling": False}
    loan = {"work": "compare", "before": 1, "now": 2, "by": by, "engine": by}
    path = state / "engines/a" / file
    path.write_text(json.dumps({"schema": 1, "intent": intent, "loans": {"x": loan}}))
    from llmtop.engines.state.restart_journal import RestartJournal
    from llmtop.engines.state.temporary_changes import _read

    def seen() -> object:
        if file == "loans.json":
            return _read(StateDirectory(state), "a")
        return RestartJournal(StateDirectory(state), Processes(), lambda: 0.0).of("a")

    assert seen()
    give_away(path)
    assert not seen()


def test_a_process_of_another_user_is_not_ended(victim: subprocess.Popen[bytes]) -> None:
    processes = Processes()
    theirs = subprocess.Popen(["sleep", "600"], user=STRANGER, cwd="/")
    try:
        for process, strange in ((victim, False), (theirs, True)):
            entry = processes.entry(process.pid)
            assert entry is not None
            if strange:
                with pytest.raises(LlmtopError, match=f"user {STRANGER}: not ended"):
                    refuse_foreign("a", processes.identify(entry), processes)
            else:
                refuse_foreign("a", processes.identify(entry), processes)
    finally:
        theirs.send_signal(signal.SIGKILL)
        theirs.wait()


async def test_a_socket_of_another_user_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "one.sock"
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        give_away(path)
        with pytest.raises(LiveError, match="another user's"):
            await LiveClient(path).get()
    assert asked == []


def test_what_is_root_or_ours_or_not_there_yet_is_trusted(tmp_path: Path) -> None:
    assert strange_part(tmp_path / "not" / "there") is None
    assert strange_part(Path("/")) is None
    give_away(tmp_path)
    assert strange_part(tmp_path / "not" / "there") == (tmp_path, str(STRANGER))


def test_a_key_file_is_ours_and_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1234\n")
    link = tmp_path / "link"
    link.symlink_to(path)  # as a cluster mounts its secrets
    assert read_key(str(path)) == read_key(str(link)) == "sk-1234"
    give_away(path)
    with pytest.raises(UsageError, match=f"belongs to the user {STRANGER}"):
        read_key(str(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        read_key(str(tmp_path / "pipe"))
    (tmp_path / "long").write_text("x" * 10_000)
    with pytest.raises(UsageError, match="larger than 4,096 bytes"):
        read_key(str(tmp_path / "long"))


def test_a_description_of_engines_that_somebody_else_left_here_is_not_read(home: Home) -> None:
    path = home.folder / "llmtop.toml"
    path.write_text("[engines.a]\nengine = 'sim'\n")
    give_away(path)
    done = home.run("up")
    assert done.code == 2
    assert f"llmtop.toml belongs to the user {STRANGER}" in done.err
    assert "--config FILE" in done.err
