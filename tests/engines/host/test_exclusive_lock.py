"""Who may read an engine that only one may read."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmtop.engines.host.exclusive_lock import MOST_BYTES, ExclusiveLock
from tests.folders import ROOT

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize("other", [URL, "http://localhost:8000/", "http://[::1]:8000"])
def test_one_at_a_time_whatever_the_server_is_called(tmp_path: Path, other: str) -> None:
    first, second = ExclusiveLock(tmp_path / "r", URL), ExclusiveLock(tmp_path / "r", other)
    assert first.take() and first.take()
    assert not second.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert not first.take()
    second.release()
    second.release()


@pytest.mark.parametrize("other", ["http://127.0.0.1:8001", "http://gpu7:8000", "https://gpu7"])
def test_other_servers_are_other_claims(tmp_path: Path, other: str) -> None:
    first, second = ExclusiveLock(tmp_path, URL), ExclusiveLock(tmp_path, other)
    assert first.take() and second.take()
    first.release()
    second.release()


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    claim = ExclusiveLock(tmp_path / "r", URL)
    claim.take()
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    files = list((tmp_path / "r").iterdir())
    assert files and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    claim.release()


def test_one_in_the_background_is_only_there_while_nobody_else_wants_it(tmp_path: Path) -> None:
    quiet, other = ExclusiveLock(tmp_path, URL), ExclusiveLock(tmp_path, URL)
    quiet.background = True
    assert quiet.take() and not quiet.wanted()
    assert not other.take() and quiet.wanted()
    quiet.release()
    assert not quiet.take()  # the other one has not come back yet, but still wants it
    assert other.take() and not quiet.take()
    other.release()
    assert not quiet.wanted() and quiet.take()
    quiet.release()


def test_what_its_holder_publishes_is_whole_or_not_there(tmp_path: Path) -> None:
    holder, reader = ExclusiveLock(tmp_path, URL), ExclusiveLock(tmp_path, URL)
    assert reader.published() == b""
    holder.take()
    for told in (b"long " * 20, b"short", b""):
        holder.publish(told)
        assert reader.published() == told
    holder.publish(b"x" * (MOST_BYTES + 1))
    reader.publish(b"not mine")
    assert reader.published() == b""
    holder.release()


def test_a_dead_llmtop_keeps_nobody_away(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from llmtop.engines.host.exclusive_lock import ExclusiveLock; "
        "print(ExclusiveLock(pathlib.Path(sys.argv[1]), sys.argv[2]).take(), flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path), URL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        claim = ExclusiveLock(tmp_path, URL)
        assert not claim.take()
        holder.kill()
        holder.wait()
        assert claim.take()
        claim.release()


def test_a_folder_that_cannot_be_used_keeps_nobody_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert ExclusiveLock(tmp_path / "file", URL).take()
    assert ExclusiveLock(None, URL).take()
