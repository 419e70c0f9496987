"""Commands close what they open: Python's development mode finds nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.llmtop_process import Home, demo, free_port
from tests.terminal import Terminal
from tests.tiers import first

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"), {"PYTHONDEVMODE": "1"})
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def engine(home: Home) -> None:
    args = ("run", "sim", "--detach", "--name", "one", "--port", str(free_port()))
    done = home.run(*args, "--", "--startup-s", "0")
    assert done.code == 0 and "ResourceWarning" not in done.err


def closes_all(home: Home, args: tuple[str, ...], code: int) -> None:
    done = home.run(*args)
    assert done.code == code, done.err
    assert "ResourceWarning" not in done.err


@pytest.mark.parametrize("args", first(1, [("once", ":1"), ("load", ":1", "-d", "1s")]))
def test_no_socket_is_left_open_where_nobody_answers(home: Home, args: tuple[str, ...]) -> None:
    closes_all(home, args, 1)


@pytest.mark.more
@pytest.mark.parametrize(
    "args",
    [
        ("ps",),
        ("once", "one", "--window", "200ms"),
        ("options", "one"),
        ("set", "one", "max_num_seqs=9"),
        ("load", "one", "-c", "1", "-d", "1s", "--no-calibrate"),
        ("restart", "one", "--yes"),
        ("restart", "one", "--rolling", "--yes"),
    ],
)
def test_no_socket_and_no_file_is_left_open(
    home: Home, engine: None, args: tuple[str, ...]
) -> None:
    closes_all(home, args, 0)


@pytest.mark.more
def test_a_dashboard_that_is_left_while_its_load_starts_closes_it(home: Home) -> None:
    said = home.folder / "said"
    line = 'exec "$@" 2>' + str(said)
    with Terminal(["bash", "-c", line, "bash", *demo()], home.environ) as terminal:
        terminal.see("ready")
        terminal.type("q")
        terminal.see("leave them running")
        terminal.type("\r")
        assert terminal.wait() == 0
    assert "ResourceWarning" not in said.read_text()
