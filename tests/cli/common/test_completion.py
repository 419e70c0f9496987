"""Shell completion: the scripts, and what is offered at each place of the command line."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.llmtop_process import Home, free_port


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.make(tmp_path_factory.mktemp("home"))


ENGINE = ("run", "sim", "--detach", "--name", "qwen")


def offered(home: Home, *words: str) -> list[str]:
    """What bash would offer for the last of ``words``."""
    asking = Home(
        home.folder,
        {
            "_LLMTOP_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("llmtop", *words)),
            "COMP_CWORD": str(len(words)),
        },
    )
    done = asking.run()
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.out.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_llmtop_itself(home: Home, shell: str) -> None:
    done = home.run("completion", shell)
    assert done.code == 0
    assert f"_LLMTOP_COMPLETE={shell}_complete" in done.out


def test_another_shell_costs_one_line_that_names_the_three(home: Home) -> None:
    done = home.run("completion", "tcsh")
    assert done.code == 2 and "'bash', 'zsh', 'fish'" in done.err.splitlines()[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_accepts_the_script(home: Home) -> None:
    script = home.run("completion", "bash").out + "\ncomplete -p llmtop\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "_llmtop_completion llmtop" in done.stdout


def test_commands_and_options_are_completed(home: Home) -> None:
    assert offered(home, "rest") == ["restart"]
    assert {"demo", "run", "man"} <= set(offered(home, ""))
    assert "--follow" in offered(home, "logs", "--")
    assert offered(home, "completion", "f") == ["fish"]


def test_an_unknown_command_is_no_error_while_a_line_is_typed(home: Home) -> None:
    assert "--theme" in offered(home, "nosuch", "--")


def test_names_of_examples_and_files_are_completed(home: Home) -> None:
    for words in (("replay",), ("report",), ("check", "x", "--baseline")):
        assert "h200-overload" in offered(home, *words, "h200-o"), words
    asking = ("replay", "run")
    assert offered(home, *asking) == ["run"]  # the shell completes it as a file


def test_names_of_engines_are_completed(home: Home) -> None:
    started = home.run(*ENGINE, "--port", str(free_port()), "--", "--startup-s", "0")
    try:
        assert started.code == 0, started.err
        for command in ("logs", "stop", "set", "load"):
            assert offered(home, command, "q") == ["qwen"], command
        assert offered(home, "logs", "x") == []
    finally:
        home.stop_all()
