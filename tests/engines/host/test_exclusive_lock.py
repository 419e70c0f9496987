"""Who may read an engine that only one may read."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmtop.engines.host.exclusive_lock import ExclusiveLock
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
    (lock,) = (tmp_path / "r").iterdir()
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    claim.release()


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
