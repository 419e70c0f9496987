"""The recorder as an exporter, as a user begins and ends it."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.llmtop_process import Home, free_port

pytestmark = [pytest.mark.process, pytest.mark.more]
PATIENCE_S = 90.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home.make(tmp_path, {"LLMTOP_HISTORY": "on"})
    yield made
    made.stop_all()


def eventually(true: Callable[[], bool]) -> bool:
    ends = time.monotonic() + PATIENCE_S
    while not (found := true()) and time.monotonic() < ends:
        time.sleep(0.1)
    return found


def page(port: int) -> str:
    """The metrics, "" where nothing listens."""
    with contextlib.suppress(OSError):
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())
    return ""


def test_the_recorder_exports_until_it_is_told_not_to(home: Home) -> None:
    port = free_port()
    listen = f"127.0.0.1:{port}"
    done = home.run("export", "--detach", "--listen", listen)
    assert done.code == 0 and "while an engine runs" in done.err
    assert page(port) == ""
    started = home.run(
        "run", "sim", "--detach", "--name", "one", "--port", str(free_port()), "--",
        "--startup-s", "0",
    )  # fmt: skip
    assert started.code == 0, started.err
    assert eventually(lambda: 'llmtop_engine_answers{engine="one"} 1' in page(port))
    assert home.run("load", "one", "--shape", "hold 4 for 2s", "--no-calibrate").code == 0
    assert eventually(lambda: 'llmtop_ttft_seconds_count{engine="one"}' in page(port))
    assert eventually(lambda: 'llmtop_steps_total{engine="one",kind="decode"}' in page(port))
    assert home.run("export", "--stop").code == 0
    assert eventually(lambda: page(port) == "")
    # The same recorder, or its next image, still writes the history.
    assert "serves no metrics" in home.run("export", "--stop").err


def test_what_cannot_be_meant_costs_one_line(home: Home) -> None:
    for arguments, words in (
        (("one", "--detach"), "omit the names"),
        (("--detach", "--stop"), "give --detach or --stop, not both"),
        (("--detach", "--listen", "127.0.0.1:0"), "a fixed port"),
        (("--detach", "--listen", "somewhere"), "not an address"),
        ([f"http://127.0.0.1:{port}" for port in range(1, 66)], "at most 64 engines"),
    ):
        done = home.run("export", *arguments)
        assert done.code == 2 and words in done.err, done.err
