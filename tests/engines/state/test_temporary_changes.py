"""What a killed comparison leaves changed is told until somebody decides; nothing is put back.

One engine serves the file; the tests run in order.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.llmtop_process import Home, command, free_port, home_with_engine
from tests.terminal import Terminal
from tests.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.more]  # each test begins where the last one ended

DEADLINE_S = 90.0
QUICK = ("--startup-s", "0.2", "--max-num-seqs", "16")
CUT = "compare was killed: max_num_seqs is 8, was 16: llmtop set one max_num_seqs=16"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home_with_engine(tmp_path_factory.mktemp("home"), "one", *QUICK) as home:
        yield home


def file_of(home: Home) -> Path:
    return home.folder / "state" / "llmtop" / "engines" / "one" / "loans.json"


def on_loan(home: Home) -> dict[str, Any]:
    """The options that are on loan, with their values now."""
    try:
        loans = json.loads(file_of(home).read_bytes())["loans"]
    except FileNotFoundError:
        return {}
    return {name: loan["now"] for name, loan in loans.items()}


def comparing(
    home: Home,
    *args: str,
    end: signal.Signals = signal.SIGKILL,
    at: Callable[[Home], bool] | None = None,
) -> str:
    """End ``llmtop compare one`` once it has changed something; what ps said just before.

    at: when to end it instead, without a look at ps.
    """
    process = subprocess.Popen(
        command("compare", "one", *args, "-c", "4", "--run-seconds", "60", "--workers", "1"),
        env=home.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: on_loan(home) or process.poll() is not None, "a change")
        assert process.poll() is None
        if at is not None:
            until(lambda: at(home), "the moment")
        elif args == RESTARTING:
            until(lambda: restarted(home, "4096"), "the start with A")
        before = "" if at is not None else detail(home)
        os.kill(process.pid, end)
        process.wait(DEADLINE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE_S)
    return before


def record(home: Home) -> dict[str, Any]:
    return dict(json.loads(file_of(home).with_name("record.json").read_bytes())["record"])


def arguments(home: Home) -> list[str]:
    return list(record(home)["spec"]["args"])


def starting_short(home: Home) -> bool:
    """Whether its start with A has begun: it is written down before there is a process."""
    return "4096" in arguments(home) and bool(record(home)["pid"])


def restarted(home: Home, argument: str) -> bool:
    """Whether it runs with this argument, and nobody is at it any more."""
    return argument in arguments(home) and not file_of(home).with_name("restart.json").exists()


def detail(home: Home) -> str:
    return str(home.run("ps", "--json").json["engines"][0]["detail"])


def value(home: Home, name: str) -> object:
    options = home.run("options", "one", "--json").json["options"]
    return next(option["value"] for option in options if option["name"] == name)


RESTARTING = ("--a", "max_model_len=4096", "--b", "max_model_len=2048", "--yes")
LIVE = ("--a", "max_num_seqs=8", "--b", "max_num_seqs=4")


def test_a_killed_comparison_is_told_wherever_one_would_look(home: Home) -> None:
    assert comparing(home, *LIVE) == ""  # while it goes on there is nothing to mend
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    assert detail(home) == CUT
    assert CUT in home.run("ps").out
    listed = home.run("options", "one")
    assert CUT in listed.err
    assert value(home, "max_num_seqs") == 8  # nothing was put back unasked
    with Terminal(command(), home.environ, 160, 40) as terminal:
        terminal.see("compare was killed: max_num_seqs is 8, was 16")
        terminal.see("▲ was 16")
        terminal.type("q")


def test_another_comparison_does_not_forget_what_it_was_at_first(home: Home) -> None:
    comparing(home, "--a", "max_num_seqs=2", "--b", "max_num_seqs=4", end=signal.SIGTERM)
    assert value(home, "max_num_seqs") == 8  # as that one found it
    assert detail(home) == CUT


def test_whoever_sets_it_has_decided(home: Home) -> None:
    assert home.run("set", "one", "max_num_seqs=12").code == 0
    assert detail(home) == "" and not file_of(home).exists()


def test_one_that_ends_in_order_leaves_nothing(home: Home) -> None:
    comparing(home, *LIVE, end=signal.SIGTERM)
    assert value(home, "max_num_seqs") == 12
    assert detail(home) == "" and not file_of(home).exists()


def test_a_restart_settles_what_was_changed_as_it_ran(home: Home) -> None:
    comparing(home, *LIVE)
    assert detail(home).startswith("compare was killed: max_num_seqs is 8, was 12")
    assert home.run("restart", "one", "--yes").code == 0
    assert detail(home) == ""


def test_options_that_it_was_restarted_with_are_told_too(home: Home) -> None:
    length = value(home, "max_model_len")
    comparing(home, *RESTARTING)
    assert detail(home) == (
        f"compare was killed: max_model_len is 4,096, was {length:,}: "
        f"llmtop set one max_model_len={length} --restart"
    )
    assert home.run("set", "one", f"max_model_len={length}", "--restart", "--yes").code == 0
    assert detail(home) == ""


def test_whoever_asks_for_what_it_has_by_then_has_decided(home: Home) -> None:
    length = value(home, "max_model_len")
    comparing(home, *RESTARTING)
    assert detail(home).startswith("compare was killed: max_model_len is 4,096")
    kept = home.run("set", "one", "max_model_len=4096", "--restart", "--yes")
    assert kept.code == 0 and "unchanged" in kept.err
    assert detail(home) == "" and not file_of(home).exists()
    back = home.run("set", "one", f"max_model_len={length}", "--restart", "--yes")
    assert back.code == 0, back.err


def test_a_start_that_lost_a_live_value_says_what_it_was(home: Home) -> None:
    """Killed while the engine starts, so that nobody sets again what had been set as it ran."""
    length, launched = value(home, "max_model_len"), value(home, "max_num_seqs")
    assert home.run("set", "one", "max_num_seqs=3").code == 0
    comparing(home, *RESTARTING, at=starting_short)
    until(lambda: home.run("ps", "--json").json["engines"][0]["state"] == "ready", "the start")
    said = detail(home)
    assert said.startswith("compare was killed: ") and said.count("compare") == 1
    assert f"max_model_len is 4,096, was {length:,}" in said
    assert f"max_num_seqs is {launched}, was 3" in said
    assert f"max_model_len={length}" in said and "max_num_seqs=3" in said
    assert home.run("restart", "one", "--yes").code == 0  # its arguments stay, by somebody's word
    assert value(home, "max_model_len") == 4096
    assert detail(home) == "" and not file_of(home).exists()


def test_another_engine_of_this_name_starts_with_a_clean_slate(home: Home) -> None:
    comparing(home, "--a", "max_model_len=2048", "--b", "max_model_len=1024", "--yes")
    assert home.run("stop", "one").code == 0
    started = home.run(
        *("run", "sim", "--detach", "--name", "one", "--port", str(free_port())),
        *("--", *QUICK, "--max-model-len", "2048"),
    )
    assert started.code == 0, started.err
    assert detail(home) == "" and not file_of(home).exists()


def test_a_damaged_file_is_no_reason_to_fail(home: Home) -> None:
    for text in ('{"loans": ', "[" * 100_000, '{"loans": {"max_num_seqs": 1}}', "\xff"):
        file_of(home).write_text(text)
        assert detail(home) == ""
        assert home.run("options", "one").code == 0
