"""The unit file of ``llmtop watch``, as systemd reads it, and what the program tells systemd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import ROOT
from tests.llmtop_process import Home, command

UNIT = ROOT / "docs" / "monitoring" / "llmtop-watch.service"
REQUIRED = "LLMTOP_REQUIRE_SYSTEMD"
PATIENCE_S = 120.0


def analyze() -> str:
    """The path of systemd-analyze; the test is skipped where it is not installed, unless the
    variable says that it must be."""
    found = shutil.which("systemd-analyze")
    if found is None:
        reason = "systemd-analyze is not installed (apt-get install systemd)"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def verify(unit: Path, home: Path) -> list[str]:
    """What systemd-analyze says of a unit of a user who has installed llmtop and its manual."""
    program = analyze()
    llmtop, page = home / ".local" / "bin" / "llmtop", home / "man" / "man1" / "llmtop.1"
    for path in (llmtop, page):
        path.parent.mkdir(parents=True)
    llmtop.write_text("#!/bin/sh\n")
    llmtop.chmod(0o755)
    shutil.copy(ROOT / "docs" / "llmtop.1", page)
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    pages = "yes" if shutil.which("man") else "no"
    done = subprocess.run(
        [program, "--user", f"--man={pages}", "verify", str(unit)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "MANPATH": str(page.parent.parent),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    # Other units of the machine are loaded too, and may have faults of their own.
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if unit.stem in line or line.startswith("Failed to")]


@pytest.mark.process
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert verify(UNIT, tmp_path) == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("WatchdogSec=", "WatchdogSeconds="), ("/.local/bin/llmtop", "/bin/no-llmtop")],
)
def test_a_fault_in_the_unit_would_be_said(tmp_path: Path, right: str, wrong: str) -> None:
    text = UNIT.read_text()
    assert right in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(right, wrong))
    assert verify(unit, tmp_path)


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What systemd listens on, and NOTIFY_SOCKET for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        if request.param == "a path":
            made.bind(str(tmp_path / "notify"))
            name = str(tmp_path / "notify")
        else:
            made.bind("")  # the kernel gives it an abstract name
            name = made.getsockname().decode().replace("\0", "@")
        made.settimeout(PATIENCE_S)
        yield made, name


@pytest.mark.process
def test_the_program_tells_systemd_what_the_unit_asks_for(
    tmp_path: Path, systemd: tuple[socket.socket, str]
) -> None:
    listening, name = systemd
    unit = UNIT.read_text()
    assert "Type=notify" in unit and "WatchdogSec=90" in unit
    home = Home.make(tmp_path)
    (tmp_path / "llmtop.toml").write_text('[alerts.still]\nwhen = "hung"\n')
    with subprocess.Popen(
        command("watch", "--interval", "500ms"), env={**home.environ, "NOTIFY_SOCKET": name},
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as watch:  # fmt: skip
        try:
            got = [listening.recv(1000).decode() for _ in range(3)]
            watch.send_signal(signal.SIGTERM)
            while got[-1] != "STOPPING=1":
                got.append(listening.recv(1000).decode())
            assert watch.wait(PATIENCE_S) == 0, watch.stderr
        finally:
            watch.kill()
    assert got[0] == "READY=1"
    assert set(got[1:-1]) == {"WATCHDOG=1\nSTATUS=0 engines, 0 alerts"}
