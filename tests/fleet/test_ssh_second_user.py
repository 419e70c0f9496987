"""The engine of another user of this machine, through a real sshd: his own llmtop acts on it."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from msgspec import Struct

from tests.fleet.second_user import User, second_user
from tests.fleet.sshd import HOST, PATIENCE_S, running
from tests.llmtop_process import Done, Home, command, free_port
from tests.terminal import Terminal

pytestmark = [pytest.mark.process, pytest.mark.more]
FAR = f"ssh://{HOST}/far"


class Operator(Struct, frozen=True):
    """Who acts from here; user: whose engine ``far`` is."""

    home: Home
    user: User

    def run(self, *args: str) -> Done:
        return self.home.run(*args, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with second_user() as user, running(user.folder, user.name, user.program) as environ:
        found = Operator(Home.make(tmp_path_factory.mktemp("here"), environ), user)
        done = found.run(
            f"ssh://{HOST}", "run", "sim", "--detach", "--name", "far",
            "--port", str(free_port()), "--", "--startup-s", "0",
        )  # fmt: skip
        assert done.code == 0, done.err
        yield found


def limit(operator: Operator) -> object:
    options = operator.run("options", FAR, "--json").json["options"]
    return next(one["value"] for one in options if one["name"] == "max_num_seqs")


def test_the_engine_is_his(operator: Operator) -> None:
    (far,) = operator.run("ps", f"ssh://{HOST}", "--json").json["engines"]
    assert far["name"] == "far"
    assert psutil.Process(far["pid"]).uids().real == operator.user.uid
    assert operator.run("ps", "--json").json["engines"] == []


def test_set_changes_an_option_of_it(operator: Operator) -> None:
    done = operator.run("set", FAR, "max_num_seqs=32", "--json")
    assert done.code == 0, done.err
    assert done.json["changes"][0]["option"] == "max_num_seqs"
    assert limit(operator) == 32


def test_why_names_causes(operator: Operator) -> None:
    done = operator.run("why", FAR, "--json")
    assert done.code == 0, done.err
    assert done.json["name"] == "far" and done.json["causes"]


def test_the_dashboard_changes_an_option_of_it(operator: Operator) -> None:
    with Terminal(command(FAR), operator.home.environ) as terminal:
        terminal.see("ready", PATIENCE_S)
        terminal.type("o")
        terminal.see("▸max_num_seqs", PATIENCE_S)
        terminal.type("\r")
        terminal.type("48\r")
        terminal.see("max_num_seqs = 48: applied", PATIENCE_S)
        terminal.type("\x1b")
        terminal.see("o options", PATIENCE_S)
        terminal.type("y")
        terminal.see("from metrics over", PATIENCE_S)
        terminal.type("\x1b")
        terminal.see("o options", PATIENCE_S)
        terminal.type("q")
        terminal.see("stay", PATIENCE_S)
        terminal.type("q")
        assert terminal.wait(PATIENCE_S) == 0
    assert limit(operator) == 48
