"""What an engine and a load worker get of llmtop's surroundings, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmtop.engines.supervision.inheritance import (
    WITHOUT_FOLDER,
    check_folder,
    guarded,
    inherited,
)
from llmtop.engines.supervision.preflight import LaunchRefused
from llmtop.interpreter import for_own_code
from tests.llmtop_process import Home, command, free_port

pytestmark = pytest.mark.process

TRAP = "import pathlib\npathlib.Path('trapped').touch()\nraise SystemExit('trapped')\n"
# What the standard library imports early, and the engines themselves.
TRAPPED = ("json", "runpy", "asyncio", "multiprocessing", "aiohttp", "msgspec", "vllm", "sglang")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.make(tmp_path)
    for name in TRAPPED:
        (tmp_path / f"{name}.py").write_text(TRAP)
    return home


def run(home: Home, *args: str) -> subprocess.CompletedProcess[str]:
    """As the installed script does: without the current folder."""
    python, *rest = command(*args)
    return subprocess.run(
        [python, "-P", *rest],
        env=home.environ,
        cwd=home.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.more
def test_no_module_of_the_current_folder_runs_in_what_llmtop_starts(home: Home) -> None:
    port = str(free_port())
    started = run(home, "run", "sim", "--detach", "--port", port, "--", "--startup-s", "0")
    assert started.returncode == 0, started.stderr
    try:
        loaded = run(home, "load", "sim", "-c", "1", "-d", "1", "--calibrate")
        assert loaded.returncode == 0, loaded.stderr
        real = run(home, "run", "vllm", "tiny", "--python", sys.executable, "--detach")
        assert real.returncode == 1
        assert run(home, "doctor").returncode == 0
    finally:
        run(home, "stop", "sim", "--grace", "2")
    assert not (home.folder / "trapped").exists()


def test_a_python_before_3_11_is_kept_from_the_folder_by_a_line_of_ours(home: Home) -> None:
    old = home.folder / "old" / "bin" / "python"
    old.parent.mkdir(parents=True)
    (old.parent.parent / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.10.13\n")
    line = guarded((str(old), "-m", "json.tool", "--help"))
    assert line[1:4] == ("-c", WITHOUT_FOLDER, "json.tool")
    done = subprocess.run([sys.executable, *line[1:]], cwd=home.folder, capture_output=True)
    assert done.returncode == 0 and b"usage" in done.stdout
    assert not (home.folder / "trapped").exists()


def test_an_old_python_does_not_start_where_other_users_can_write(tmp_path: Path) -> None:
    """A script keeps the folder away itself; the Pythons that it starts do not."""
    binaries = tmp_path / "old" / "bin"
    binaries.mkdir(parents=True)
    (tmp_path / "old" / "pyvenv.cfg").write_text("version = 3.10.13\n")
    (binaries / "vllm").write_text(f"#!{binaries}/python\n")
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder, mode in ((shared, 0o777), (own, 0o755)):
        folder.mkdir()
        folder.chmod(mode)
    for words in ((str(binaries / "vllm"), "serve"), (str(binaries / "python"), "-m", "vllm")):
        check_folder(words, own)
        with pytest.raises(LaunchRefused, match=r"on Python 3\.10, .* other users can write to"):
            check_folder(words, shared)
    (tmp_path / "old" / "pyvenv.cfg").write_text("version = 3.11.2\n")
    check_folder((str(binaries / "vllm"), "serve"), shared)
    check_folder(("/bin/sh", "-c", "true"), shared)


def test_a_newer_python_is_told_by_its_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("version_info = 3.12.1\n")
    words = (str(tmp_path / "bin" / "python"), "-m", "vllm.entrypoints.cli.main", "serve")
    assert guarded(words) == words
    assert guarded(("vllm", "serve", "-m")) == ("vllm", "serve", "-m")


def test_an_engine_gets_no_key_of_llmtop() -> None:
    own = {"LLMTOP_API_KEY": "k", "LLMTOP_ADMIN_API_KEY": "a", "HF_TOKEN": "h", "PATH": "/bin"}
    assert inherited({"PYTHONPATH": ":/x:"}, {})["PYTHONPATH"] == "/x"  # empty: the current folder
    assert inherited(own, {}) == {"HF_TOKEN": "h", "PATH": "/bin", "PYTHONSAFEPATH": "1"}
    # What was asked for by name is given.
    assert inherited(own, {"LLMTOP_API_KEY": "k"})["LLMTOP_API_KEY"] == "k"


def test_the_keys_are_not_in_a_running_engines_environment(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    keys = {"LLMTOP_API_KEY": "k-1", "LLMTOP_ADMIN_API_KEY": "k-2"}
    args = ("run", "sim", "--detach", "--json", "--port", str(free_port()))
    started = Home(home.folder, keys).run(*args, "--", "--startup-s", "0")
    try:
        told = Path(f"/proc/{started.json['pid']}/environ").read_bytes()
    finally:
        home.run("stop", "sim", "--grace", "2")
    assert b"LLMTOP_LIVE_SOCKET=" in told and b"PYTHONSAFEPATH=1" in told
    assert b"k-1" not in told and b"k-2" not in told


def test_own_code_is_found_wherever_llmtop_was_imported_from() -> None:
    added = for_own_code({"PYTHONPATH": ":/x:"})
    assert added["PYTHONSAFEPATH"] == "1"
    assert "" not in added["PYTHONPATH"].split(os.pathsep)
    assert added["PYTHONPATH"].endswith("/x")
