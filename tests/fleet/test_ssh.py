"""Commands for another machine: what is run there, and what is refused."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from llmtop import UsageError
from llmtop.fleet.ssh import Destination, command, forwarded


@pytest.mark.parametrize(
    ("argv", "there"),
    [
        (["ssh://gpu-7"], []),
        (["attach", "ssh://gpu-7"], []),
        (["ssh://gpu-7/llama", "--readonly"], ["attach", "llama", "--readonly"]),
        (["ps", "ssh://gpu-7"], ["ps"]),
        (["set", "ssh://gpu-7/llama", "max_num_seqs=8"], ["set", "llama", "max_num_seqs=8"]),
        (
            ["set", "ssh://gpu-7/a", "--restart", "--", "ssh://x"],
            ["set", "a", "--restart", "--", "ssh://x"],
        ),
    ],
)
def test_a_command_runs_where_its_engine_is(argv: Sequence[str], there: Sequence[str]) -> None:
    assert forwarded(argv) == (Destination("gpu-7"), list(there))


def test_user_and_port() -> None:
    found = forwarded(["once", "ssh://ann@gpu-7:2222/llama"])
    assert found == (Destination("gpu-7", "ann", 2222), ["once", "llama"])


def test_without_an_address_it_runs_here() -> None:
    assert forwarded(["ps"]) is None and forwarded(["run", "sim", "--", "ssh://x"]) is None


@pytest.mark.parametrize(
    "text",
    ["ssh://-oProxyCommand=x/a", "ssh://a b/c", "ssh://u:pw@h/a", "ssh:///a", "ssh://-l@h/a"],
)
def test_what_would_be_an_option_of_ssh_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        forwarded(["once", text])
    assert "pw" not in error.value.message


def test_two_machines_in_one_command_are_refused() -> None:
    with pytest.raises(UsageError, match="several machines"):
        forwarded(["compare", "ssh://a/x", "ssh://b/y"])


def test_the_shell_there_sees_each_argument_as_one_word() -> None:
    words = ["set", "a", "model=x y", "$(touch /tmp/x)", "'"]
    environ = {"PATH": "/usr/bin:/bin", "LLMTOP_SSH_PROGRAM": "/opt/my llmtop"}
    argv = command(Destination("h", "ann", 22), words, terminal=False, environ=environ)
    assert argv[1:-1] == ["-T", "-p", "22", "-l", "ann", "--", "h"]
    assert shlex.split(argv[-1])[2:] == ["/opt/my llmtop", *words]
