"""Commands by the names that people try first, help in both orders, stop and forget of several."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.cli.common.command_names import ALIASES, GUESSES, guess, meaning
from llmtop.cli.common.command_table import COMMANDS, by_heading
from llmtop.cli.engines.ps import HEADS, listing
from tests.llmtop_process import Done, Home, command, free_port
from tests.terminal import Terminal
from tests.tiers import first

pytestmark = pytest.mark.process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path)
    yield home
    home.stop_all()


def start(home: Home, name: str) -> int:
    port = str(free_port())
    args = ("run", "sim", "--detach", "--json", "--name", name, "--port", port)
    done = home.run(*args, "--", "--startup-s", "0")
    assert done.code == 0, done.err
    return int(done.json["pid"])


def states(home: Home) -> dict[str, str]:
    return {one["name"]: one["state"] for one in home.run("ps", "--json").json["engines"]}


def test_every_alias_and_every_guess_leads_to_a_command() -> None:
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert not (set(ALIASES) | set(GUESSES)) & set(COMMANDS)
    for word in GUESSES:
        assert meaning(word, COMMANDS) is None and "did you mean" in guess(word, COMMANDS)
    assert meaning("PS", COMMANDS) == "ps" and meaning("ls", COMMANDS) == "ps"
    assert "llmtop restart" in guess("restrat", COMMANDS)
    assert guess("xyzzy", COMMANDS) == ""


@pytest.mark.parametrize("word", first(1, ["list", "ls", "status"]))
def test_other_names_of_ps_work(home: Home, word: str) -> None:
    done = home.run(word, "--json")
    assert done.code == 0 and done.json == {"engines": []}


@pytest.mark.parametrize(
    ("word", "words"),
    first(
        2,
        [
            ("start", "llmtop restart NAME"),
            ("serve", "llmtop run ENGINE MODEL"),
            ("top", "opens the dashboard"),
            ("bench", "llmtop load"),
            ("satturate", "`llmtop saturate`"),
            ("frobnicate", "the commands are"),
        ],
        2,
    ),
)
def test_a_guess_costs_one_line_with_what_was_meant(home: Home, word: str, words: str) -> None:
    done = home.run(word, "x")
    assert done.code == 2 and words in done.err
    assert len(done.err.splitlines()) == 2


def test_help_is_had_in_both_orders(home: Home) -> None:
    assert home.run("help").out == home.run("--help").out
    assert home.run("help", "load").out == home.run("load", "--help").out
    assert home.run("help", "ls").out == home.run("ps", "--help").out
    wrong = home.run("help", "loda")
    assert wrong.code == 2 and "`llmtop load`" in wrong.err


def test_several_are_stopped_at_once_and_then_forgotten(home: Home) -> None:
    pids = [start(home, name) for name in ("a", "b", "c")]
    unknown = home.run("stop", "a", "nobody")
    assert unknown.code == 2 and states(home) == dict.fromkeys("abc", "ready")
    done = home.run("stop", "a", "b", "--grace", "5s", "--yes")
    assert done.code == 0 and "a is stopped" in done.err and "b is stopped" in done.err
    assert states(home) == {"a": "stopped", "b": "stopped", "c": "ready"}
    running = home.run("forget", "c")
    assert running.code == 1 and "llmtop stop c" in running.err
    assert home.run("forget", "a").code == 0
    assert sorted(states(home)) == ["b", "c"]
    everyone = home.run("stop", "--all", "--json")
    assert [one["name"] for one in everyone.json["engines"]] == ["c"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert home.run("forget", "--stopped", "--json").json == {"forgotten": ["b", "c"]}
    assert states(home) == {}
    assert list((home.folder / "state/llmtop/engines").iterdir()) == []
    again: Done = home.run("stop", "--all")
    assert again.code == 0 and "no engine is running" in again.err


def test_a_damaged_record_is_forgotten_unless_its_engine_runs(home: Home) -> None:
    pid = start(home, "a")
    record = home.folder / "state/llmtop/engines/a/record.json"
    whole = record.read_bytes()
    record.write_text("{")
    assert home.run("forget", "a").code == 1
    record.write_bytes(whole)
    os.kill(pid, signal.SIGKILL)
    assert states(home) == {"a": "lost"}
    record.write_text("{")
    assert home.run("forget", "a").code == 0
    assert not record.parent.exists()


def test_all_are_named_and_asked_about_on_a_terminal(home: Home) -> None:
    start(home, "a")
    for answer, state in (("n", "ready"), ("y", "stopped")):
        with Terminal(command("stop", "--all"), home.environ) as terminal:
            terminal.see("Stop a?")
            terminal.type(f"{answer}\r")
            assert terminal.wait() == (0 if answer == "y" else 1)
        assert states(home) == {"a": state}


LONG = "meta-llama/Llama-3.1-405B-Instruct-FP8-dynamic-quantised-by-somebody"


@pytest.mark.parametrize(
    ("name", "model", "detail"),
    [
        ("vllm", "m", ""),
        ("vllm", LONG, ""),
        ("n" * 40, LONG, "the engine does not answer: its port is open and nothing comes " * 3),
    ],
)
def test_ps_fits_80_columns_and_cuts_nothing_that_has_room(
    name: str, model: str, detail: str
) -> None:
    cells = [name, "sim (simulated)", "unresponsive", "1234567", ":30000", "12h59m", model]
    lines = listing([(cells, detail.strip())], 80, cut=True)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for word in (*cells, *detail.split()):
        assert word in text
    assert lines[0].startswith(HEADS[0])


def test_ps_in_a_pipe_breaks_no_words(home: Home) -> None:
    cells = ["a", "vllm", "ready", "1", ":1", "1s", "m" * 300]
    lines = listing([(cells, "word " * 40)], 80, cut=False)
    assert any("m" * 300 in line for line in lines)
    start(home, "one")
    told = Home(home.folder, {"COLUMNS": "80"}).run("ps").out
    assert max(map(len, told.splitlines())) <= 80
    assert "simulated" in told and "llama-3.1-8b" in told


def test_help_lists_every_command_once_under_a_heading() -> None:
    listed = [name for entries in by_heading().values() for name in entries]
    assert sorted(listed) == sorted(COMMANDS)
