"""The real program on a real pseudo terminal, with a simulated engine under real load."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_page import running
from tests.llmtop_process import Home, command, demo, free_port
from tests.terminal import Terminal
from tests.tiers import first

pytestmark = pytest.mark.process

FAST = ("--shape", "ramp 1..48 over 1s, hold 48")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path)
    yield home
    home.stop_all()


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1].replace(",", "")) if found else -1


@pytest.mark.parametrize(("columns", "rows"), first(1, [(120, 40), (80, 24)], 2))
def test_the_demo_shows_load_and_its_keys_steer_it(home: Home, columns: int, rows: int) -> None:
    with Terminal(demo(*FAST), home.environ, columns, rows) as terminal:
        terminal.see("simulated")
        terminal.see(lambda text: number(r"run (\d+)", text) == 48, 120)
        terminal.type("-")
        terminal.see(lambda text: 0 < number(r"run (\d+)", text) < 48)
        terminal.type("+")
        terminal.see(lambda text: number(r"run (\d+)", text) >= 47)
        terminal.type("0")
        terminal.see(lambda text: number(r"run (\d+)", text) == 0)
        terminal.type("q")
        terminal.see("leave")
        terminal.type("S")
        assert terminal.wait() == 0
    assert all(e["state"] == "stopped" for e in home.run("ps", "--json").json["engines"])
    assert b"\x1b[?1049l" in terminal.raw  # the alternate screen was left


@pytest.mark.more
def test_an_option_changed_on_the_screen_is_seen_in_running(home: Home) -> None:
    with Terminal(demo(*FAST), home.environ) as terminal:
        terminal.see(lambda text: number(r"run (\d+)", text) == 48, 120)
        terminal.type("o")
        terminal.see("max_num_seqs")
        terminal.type("\r8")
        terminal.see("was 96")
        terminal.type("e\r")
        # A second on an idle machine: the beat of the screen.
        terminal.see(lambda text: 0 <= number(r"run (\d+)", text) <= 8, 30)
        terminal.see("8/8", 30)
        terminal.see("96->8", 30)
        terminal.type("q")


def test_quitting_leaves_the_engine_and_the_next_llmtop_adopts_it(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        terminal.see("ready")
        terminal.type("q")
        terminal.see("leave")
        terminal.type("\r")
        assert terminal.wait() == 0
    (engine,) = home.run("ps", "--json").json["engines"]
    assert engine["state"] == "ready"
    with Terminal(command(), home.environ, 80, 24) as terminal:
        terminal.see("ready")
        terminal.see(engine["name"])


# A program that has taken the terminal, and that does not end when it is asked to.
STUCK = """
import asyncio, sys, tty
from llmtop.tui.terminal import shutdown
shutdown.LEAVE_S = 0.2
async def main():
    here.listen(lambda: None)
    print("stuck", flush=True)
    await asyncio.Event().wait()
here = shutdown.Shutdown()
tty.setraw(sys.stdin.fileno())
asyncio.run(main())
"""


def test_a_terminated_llmtop_restores_the_terminal_and_leaves_the_engine(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        terminal.see("ready")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert "keeps running" in terminal.text
    assert b"\x1b[?1049l" in terminal.raw
    (engine,) = home.run("ps", "--json").json["engines"]
    assert engine["state"] == "ready"


@pytest.mark.more
def test_a_signal_is_obeyed_during_a_flood_of_escapes(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        terminal.see("ready")
        terminal.type("\x1b[" * 15_000)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
    assert b"\x1b[?1049l" in terminal.raw


CRASH = """
import sys
from llmtop.__main__ import main
from llmtop.tui.screens.dashboard import Dashboard
def beat(screen):
    raise ZeroDivisionError("in a beat")
Dashboard.redraw = beat
sys.argv = ["llmtop", "demo", "--no-load", "--port", sys.argv[1]]
main()
"""


def test_a_crashed_screen_is_one_line_and_exit_code_1(home: Home) -> None:
    with Terminal([sys.executable, "-c", CRASH, str(free_port())], home.environ) as terminal:
        assert terminal.wait() == 1
        lines = [line for line in terminal.text.splitlines() if line.strip()]
        faults = [line for line in lines if "the dashboard failed" in line]
        assert len(faults) == 1 and "ZeroDivisionError" in faults[0], terminal.text
        assert "Traceback" not in terminal.text and "locals" not in terminal.text
        assert terminal.canonical
    assert b"\x1b[?1049l" in terminal.raw


@pytest.mark.more
def test_a_sigquit_ends_llmtop_as_it_does_others_and_restores_the_terminal(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        before = terminal.canonical
        terminal.see("ready")
        assert before and not terminal.canonical
        os.kill(terminal.pid, signal.SIGQUIT)
        assert terminal.wait() == -signal.SIGQUIT
        assert "keeps running" in terminal.text
        assert terminal.canonical
    assert b"\x1b[?1049l" in terminal.raw
    (engine,) = home.run("ps", "--json").json["engines"]
    assert engine["state"] == "ready"


@pytest.mark.more
def test_a_screen_that_hangs_gives_the_terminal_back_when_it_is_terminated(home: Home) -> None:
    with Terminal([sys.executable, "-c", STUCK], home.environ) as terminal:
        terminal.see("stuck")
        assert not terminal.canonical
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert terminal.canonical
    assert b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw


@pytest.mark.more
def test_a_hung_up_terminal_leaves_the_engine_and_ends_the_load(home: Home) -> None:
    with Terminal(demo(*FAST), home.environ) as terminal:
        terminal.see(lambda text: number(r"run (\d+)", text) > 4, 120)
        os.kill(terminal.pid, signal.SIGHUP)
        assert terminal.wait() == 128 + signal.SIGHUP
    (engine,) = home.run("ps", "--json").json["engines"]
    assert engine["state"] == "ready"
    deadline = time.monotonic() + 60
    while running(engine["url"]):
        assert time.monotonic() < deadline, "the load outlived the screen"
        time.sleep(0.05)


@pytest.mark.more
def test_a_terminal_that_goes_without_a_signal_ends_the_screen(home: Home) -> None:
    ours, theirs = os.openpty()  # not its controlling terminal: the kernel sends it no SIGHUP
    with subprocess.Popen(
        command(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**home.environ, "TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            seen = b""
            while b"llmtop" not in seen:
                seen += os.read(ours, 65536)
            os.close(ours)
            process.wait(60)
        finally:
            process.kill()


@pytest.mark.more
def test_of_several_urls_the_good_ones_come_up_and_the_bad_one_joins_later(home: Home) -> None:
    first = str(free_port())
    held = socket.socket()  # bound and not listening: nobody else takes the port meanwhile
    held.bind(("127.0.0.1", 0))
    second = str(held.getsockname()[1])

    def start(name: str, port: str) -> None:
        done = home.run("run", "sim", "--detach", "--name", name, "--port", port)
        assert done.code == 0, done.err

    start("one", first)
    with Terminal(command("attach", f":{second}", f":{first}"), home.environ) as terminal:
        terminal.see(lambda text: "ready" in text and f":{second}" in text and "not there" in text)
        held.close()
        start("two", second)
        terminal.see(lambda text: "not there" not in text and "two answers now" in text)
        terminal.type("n")
        terminal.see("▸ two")
        terminal.type("q")
    with Terminal(command("attach", ":1", ":2"), home.environ) as terminal:
        assert terminal.wait() == 1
        assert "127.0.0.1:1" in terminal.text


def test_a_dumb_terminal_is_refused_politely(home: Home) -> None:
    environ = {**home.environ, "TERM": "dumb"}
    with Terminal(demo(), environ) as terminal:
        assert terminal.wait() == 2
        assert "--json" in terminal.text
    assert home.run("ps", "--json").json["engines"] == []


@pytest.mark.more
@pytest.mark.parametrize("where", ["2>errors.log", "2>&-"])
def test_the_screen_is_seen_where_standard_error_goes_elsewhere(home: Home, where: str) -> None:
    line = f"cd {home.folder} && exec {shlex.join(demo('--no-load'))} {where}"
    with Terminal(["sh", "-c", line], home.environ) as terminal:
        terminal.see(lambda text: "ready" in text and "KV cache" in text)
        terminal.type("q")
        terminal.see("run")
        terminal.type("q")
        assert terminal.wait() == 0
    assert b"\x1b[?1049l" in terminal.raw


@pytest.mark.more
def test_a_locale_without_the_characters_of_the_screen_gets_ascii(home: Home) -> None:
    legacy = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with Terminal(demo("--no-load"), {**home.environ, **legacy}) as terminal:
        text = terminal.see(lambda text: "ready" in text and "+ KV cache" in text)
        assert text.isascii() and "\\u" not in text


@pytest.mark.more
def test_a_tour_plays_and_a_key_takes_over(home: Home) -> None:
    with Terminal(demo("--tour", "--tour-speed", "8"), home.environ, 80, 24) as terminal:
        terminal.see("tour: idle")
        terminal.see("any key ends the tour")
        terminal.see("tour: linear growth", 120)
        terminal.see(lambda text: number(r"run (\d+)", text) > 2, 120)
        terminal.type("z")
        terminal.see(lambda text: "tour: " not in text and "? help" in text)
        terminal.see("held")
        terminal.type("q")


@pytest.mark.more
def test_a_tour_that_is_terminated_puts_options_back(home: Home) -> None:
    with Terminal(demo("--tour", "--tour-speed", "8"), home.environ) as terminal:
        terminal.see("tour: batch limit, live", 180)
        (engine,) = (home.folder / "state" / "llmtop" / "engines").iterdir()
        terminal.see(lambda _: (engine / "loans.json").exists())
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
    options = home.run("options", engine.name, "--json").json["options"]
    values = {option["name"]: option["value"] for option in options}
    assert values["max_num_seqs"] == 512
    assert not (engine / "loans.json").exists()


@pytest.mark.more
def test_the_mouse_is_let_go_for_the_terminal_and_taken_back(home: Home) -> None:
    with Terminal(demo("--no-load", "--no-mouse"), home.environ) as terminal:
        terminal.see("mouse off")
        assert b"\x1b[?1000h" not in terminal.raw
        terminal.type("m")
        terminal.see(lambda text: "mouse off" not in text)
        assert terminal.raw.rindex(b"\x1b[?1000h") > terminal.raw.rfind(b"\x1b[?1000l")
        terminal.type("m")
        terminal.see("mouse off")
        assert terminal.raw.rindex(b"\x1b[?1000l") > terminal.raw.rindex(b"\x1b[?1000h")
        terminal.type("q")


@pytest.mark.more
def test_an_engine_is_stopped_from_the_screen_once_that_is_confirmed(home: Home) -> None:
    with Terminal(demo(*FAST), home.environ, 80, 24) as terminal:
        terminal.see(lambda text: number(r"run (\d+)", text) > 4, 120)
        terminal.type("K")
        terminal.see("leave it running")
        (engine,) = home.run("ps", "--json").json["engines"]
        assert f"pid {engine['pid']}" in terminal.text and "GiB, simulated" in terminal.text
        terminal.type("Y")
        terminal.see(lambda text: "stopped" in text.replace("being stopped", ""), 60)
        terminal.type("q")
    assert [e["state"] for e in home.run("ps", "--json").json["engines"]] == ["stopped"]
