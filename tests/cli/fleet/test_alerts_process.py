"""An alert, seen by a dashboard and by ``llmtop watch`` at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llmtop_process import Home, command, free_port
from tests.terminal import Terminal

pytestmark = [pytest.mark.process, pytest.mark.more]
PATIENCE_S = 90.0
PORT = ("--port", str(free_port()), "--", "--startup-s", "0")
CONFIG = """
[alerts.down]
when = "state = failed"
bell = true
command = [{python}, {script}]

[alerts.posted]
when = "hung"
webhook_from = "NOT_SET"
"""
SCRIPT = """
import os, sys
with open({out!r}, "a") as file:
    file.write(os.environ["LLMTOP_ALERT_STATUS"] + "\\n")
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home.make(tmp_path)
    (tmp_path / "told.py").write_text(SCRIPT.format(out=str(tmp_path / "told")))
    python, script = json.dumps(sys.executable), json.dumps(str(tmp_path / "told.py"))
    (tmp_path / "config" / "llmtop").mkdir()
    config = CONFIG.format(python=python, script=script)
    (tmp_path / "config" / "llmtop" / "llmtop.toml").write_text(config)
    done = made.run(
        "run", "sim", "--detach", "--name", "one", *PORT)  # fmt: skip
    assert done.code == 0, done.err
    yield made
    made.stop_all()


def test_each_shows_it_and_one_of_them_delivers_it(home: Home, tmp_path: Path) -> None:
    told, said = tmp_path / "told", tmp_path / "said"
    pid = int(home.run("ps", "--json").json["engines"][0]["pid"])
    environ = {**home.environ, "NOT_SET": "http://127.0.0.1:1/"}
    with (
        said.open("wb") as out,
        subprocess.Popen(
            command("watch"), env=environ, cwd=tmp_path, stdout=out, stderr=out
        ) as watch,
    ):
        try:
            with Terminal(command(), home.environ, 200, 60) as terminal:
                terminal.see("needs the variable NOT_SET")
                terminal.see("ready")
                terminal.see(lambda _: "watching for" in said.read_text())
                os.kill(pid, signal.SIGKILL)
                terminal.see("alert down: one: state = failed")
                # The terminal is read all the while: a full one would hold the screen up.
                terminal.see(lambda _: "state = failed" in said.read_text())
                terminal.see(lambda _: told.exists() and told.read_text() == "begins\n")
                again = home.run("run", "sim", "--detach", "--name", "one", *PORT, timeout=120)
                assert again.code == 0, again.err
                terminal.see("alert down: one: over after")
                terminal.see(lambda _: "over after" in said.read_text())
                terminal.see(lambda _: told.read_text() == "begins\nends\n")
                assert terminal.raw.count(b"\x1b]9;") == 2
                terminal.type("q")
                terminal.see("stay")
                terminal.type("q")
                assert terminal.wait() == 0
        finally:
            watch.terminate()
            watch.wait(PATIENCE_S)
    assert said.read_text().count("over after") == 1
    assert told.read_text() == "begins\nends\n"
