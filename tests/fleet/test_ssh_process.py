"""Commands and the dashboard of another machine, through a real sshd on this one."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.sshd import PATIENCE_S, running, script
from tests.llmtop_process import Home, command, free_port
from tests.terminal import Terminal

pytestmark = [pytest.mark.process, pytest.mark.more]
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The machine on the other side: an engine in a home of its own."""
    home = Home.make(tmp_path_factory.mktemp("there"))
    port = str(free_port())
    done = home.run(
        "run", "sim", "--detach", "--name", "far", "--port", port, "--", "--startup-s", "0"
    )
    assert done.code == 0, done.err
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def here(there: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose ``ssh`` gets to the other one, and that knows no engine itself."""
    folder = tmp_path_factory.mktemp("ssh")
    variables = " ".join(f"{name}='{text}'" for name, text in there.environ.items())
    program = folder / "llmtop"
    script(program, f'exec env {variables} {sys.executable} -m llmtop "$@"')
    with running(folder, ME, program) as environ:
        yield Home.make(tmp_path_factory.mktemp("here"), environ)


def test_it_lists_the_engines_there(here: Home) -> None:
    assert here.run("ps", "--json").json["engines"] == []
    done = here.run("ps", "ssh://gpu-7", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    assert [one["name"] for one in done.json["engines"]] == ["far"]


def test_it_changes_an_option_there(here: Home, there: Home) -> None:
    done = here.run("set", "ssh://gpu-7/far", "max_num_seqs=32", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    options = there.run("options", "far", "--json").json["options"]
    (value,) = [one["value"] for one in options if one["name"] == "max_num_seqs"]
    assert value == 32


def test_it_says_why_an_engine_there_is_slow(here: Home) -> None:
    done = here.run("why", "ssh://gpu-7/far", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    assert done.json["name"] == "far" and done.json["causes"]


def test_exit_codes_and_messages_come_back(here: Home) -> None:
    done = here.run("set", "ssh://gpu-7/nobody", "max_num_seqs=32", timeout=PATIENCE_S)
    assert done.code == 2 and "nobody" in done.err
    done = here.run("ps", "ssh://nowhere.invalid", timeout=PATIENCE_S)
    assert done.code == 1 and "ssh did not get to nowhere.invalid" in done.err


def test_the_shell_there_runs_nothing_else(here: Home, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    done = here.run("set", "ssh://gpu-7/far", f"max_num_seqs=$(touch {trap})", timeout=PATIENCE_S)
    assert done.code == 2 and not trap.exists()


def test_the_dashboard_there(here: Home) -> None:
    with Terminal(command("ssh://gpu-7"), here.environ) as terminal:
        terminal.see("far", PATIENCE_S)
        terminal.type("q")
        terminal.see("stay", PATIENCE_S)
        terminal.type("q")
        assert terminal.wait(PATIENCE_S) == 0
