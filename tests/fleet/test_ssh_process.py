"""Commands and the dashboard of another machine, through a real sshd on this one."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fleet.scripted_prometheus import Rows, answering
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
    assert done.code == 1 and "ssh could not connect to nowhere.invalid" in done.err


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


@pytest.fixture(scope="module")
def beside(there: Home) -> int:
    """The port of another engine there."""
    port = free_port()
    words = ("run", "sim", "--detach", "--name", "beside", "--port", str(port))
    done = there.run(*words, "--", "--startup-s", "0")
    assert done.code == 0, done.err
    return port


def scraped(port: int) -> Callable[[str, float], Rows]:
    """A Prometheus that scrapes one engine of that machine."""

    def rows(query: str, time: float) -> Rows:
        target = {"job": "vllm", "instance": f"10.0.0.7:{port}", "node": "gpu-7"}
        own = {"__name__": "vllm:num_requests_running", "model_name": "llama", **target}
        if query.startswith("timestamp("):
            return [(target, f"{time:.3f}")]
        if query.startswith("up"):
            return [({"__name__": "up", **target}, "1")]
        asked = query.startswith(("last_over_time", "{")) and "_bucket" not in query
        return [(own, "2")] if asked else []

    return rows


def test_o_in_the_table_opens_the_instance_there(here: Home, beside: int) -> None:
    with (
        answering(scraped(beside)) as url,
        Terminal(command("fleet", "--prometheus", url), here.environ) as terminal,
    ):
        terminal.see(f"10.0.0.7:{beside}", PATIENCE_S)
        terminal.type("o")
        assert "far" not in terminal.see("beside", PATIENCE_S)
        terminal.type("q")
        terminal.see("stay", PATIENCE_S)
        terminal.type("q")
        terminal.see(f"10.0.0.7:{beside}", PATIENCE_S)


def test_o_opens_all_engines_there_where_the_instance_is_not_known(here: Home, beside: int) -> None:
    with (
        answering(scraped(1)) as url,  # nothing listens there
        Terminal(command("fleet", "--prometheus", url), here.environ) as terminal,
    ):
        terminal.see("10.0.0.7:1", PATIENCE_S)
        terminal.type("o")
        terminal.see(lambda text: "far" in text and "beside" in text, PATIENCE_S)
        terminal.type("q")
        terminal.see("stay", PATIENCE_S)
        terminal.type("q")
        terminal.see("found no engine at :1", PATIENCE_S)


SHAPE = "hold 1 for 4321s"


def sends_there() -> bool:
    return any(SHAPE in (one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))


def test_a_command_there_ends_with_the_one_here_also_without_a_terminal(here: Home) -> None:
    with subprocess.Popen(
        command("load", "ssh://gpu-7/far", "--shape", SHAPE), env=here.environ, cwd=here.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as load:  # fmt: skip
        assert load.stderr is not None
        assert any("in flight" in line for line in load.stderr)
        assert sends_there()
        os.killpg(load.pid, signal.SIGINT)  # as Ctrl+C does it
        assert load.wait(PATIENCE_S) == 130
    deadline = time.monotonic() + PATIENCE_S
    while sends_there():
        assert time.monotonic() < deadline, "the load there goes on"
        time.sleep(0.1)
