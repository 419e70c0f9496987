"""Changes of a simulated engine with data-parallel ranks, from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine_page import gauge
from tests.llmtop_process import Done, Home, command, free_port

pytestmark = pytest.mark.process

STREAMS = 24


def start(home: Home, name: str, *flags: str) -> dict[str, Any]:
    done = home.run(
        *("run", "sim", "--detach", "--json", "--name", name, "--port", str(free_port()), "--"),
        *("--startup-s", "0.2", "--max-num-seqs", "64", "--data-parallel-size", "2", *flags),
    )
    assert done.code == 0, done.err
    return dict(done.json)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def url(home: Home) -> str:
    return str(start(home, "two")["url"])


@pytest.fixture
def load(home: Home, url: str) -> Iterator[None]:
    """Streams on both ranks, with answers so long that none ends meanwhile."""
    flags = ("-c", str(STREAMS), "-d", "120", "--prompt-tokens", "16", "--output-tokens", "8000",
             "--no-calibrate")  # fmt: skip
    process = subprocess.Popen(
        command("load", "two", *flags, "--json"),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: gauge(url, "num_requests_running") == [STREAMS / 2] * 2)
        yield
    finally:
        process.kill()
        process.wait()
        wait(lambda: gauge(url, "num_requests_running") == [0, 0])


def wait(what: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.05)


def change(done: Done) -> dict[str, Any]:
    (found,) = done.json["changes"]
    return dict(found)


def test_eviction_cuts_both_ranks_and_the_answer_says_so(home: Home, url: str, load: None) -> None:
    done = home.run("set", "two", "max_num_seqs=4", "--evict")
    assert done.code == 0, done.err
    assert re.search(
        r"max_num_seqs 64 -> 4: applied on 2 of 2 ranks in \d+ ms, "
        r"16 requests put back into the queue \(8 on rank 0, 8 on rank 1\)",
        done.err,
    ), done.err
    assert gauge(url, "num_requests_running") == [4, 4]

    done = home.run("set", "two", "max_num_seqs=64", "--json")
    assert [one["outcome"] for one in change(done)["ranks"]] == ["applied", "applied"]
    wait(lambda: gauge(url, "num_requests_running") == [STREAMS / 2] * 2)


@pytest.mark.more
def test_without_eviction_it_says_what_still_runs(home: Home, url: str, load: None) -> None:
    done = home.run("set", "two", "max_num_seqs=4")
    assert done.code == 0, done.err
    assert "applied on 2 of 2 ranks" in done.err
    words = "still running: 12 on rank 0, 12 on rank 1; requests above the limit finish"
    assert words in done.err
    assert words in home.run("options", "two").out
    done = home.run("set", "two", "max_num_seqs=64", "--json")
    assert "still running" not in change(done)["note"]


def test_the_document_has_each_rank(home: Home, url: str) -> None:
    found = change(home.run("set", "two", "max_num_seqs=32", "--json"))
    assert found["outcome"] == "applied" and found["evicted"] == 0
    assert found["ranks"] == [
        {"rank": rank, "from": 64, "outcome": "applied", "reason": None, "evicted": 0}
        for rank in (0, 1)
    ]
    options = home.run("options", "two", "--json").json["options"]
    (cap,) = [one for one in options if one["name"] == "max_num_seqs"]
    assert cap["ranks"] == [{"rank": rank, "value": 32, "pending": None} for rank in (0, 1)]
    assert cap["note"] == "for each of 2 data-parallel ranks"
    assert home.run("set", "two", "max_num_seqs=64").code == 0


def test_numbers_are_those_of_both_ranks(home: Home, url: str, load: None) -> None:
    once = home.run("once", "two", "--json", "--window", "0.5")
    assert once.json["running"] == STREAMS


def socket_of(home: Home, name: str) -> Path:
    record = home.folder / "state" / "llmtop" / "engines" / name / "record.json"
    return Path(json.loads(record.read_bytes())["record"]["live_socket"])


@pytest.mark.more
def test_a_rank_that_refuses_is_named_and_what_differs_is_shown(home: Home) -> None:
    start(home, "off", "--misbehave", "rank-off")
    done = home.run("set", "off", "max_num_seqs=16")
    assert done.code == 1
    assert "llmtop: max_num_seqs 64 -> 16: applied on 1 of 2 ranks; rank 1 refused: " in done.err
    assert "switched off on this rank" in done.err
    listed = home.run("options", "off")
    assert re.search(r"^max_num_seqs +16/64 ", listed.out, re.MULTILINE), listed.out
    assert "the ranks differ: 16 on rank 0, 64 on rank 1" in listed.out
    assert "rank 1: live options are off" in listed.err
    # Asking for it once more is not asking for nothing, although rank 0 has it.
    assert home.run("set", "off", "max_num_seqs=16", "--restart", "--json").code == 1
    home.run("stop", "off", "--grace", "2")


@pytest.mark.more
def test_a_silent_rank_is_named_and_sockets_of_a_dead_engine_go(home: Home) -> None:
    start(home, "mute", "--misbehave", "rank-mute")
    done = home.run("set", "mute", "max_num_seqs=16", "--json")
    found = change(done)
    assert (done.code, found["outcome"]) == (1, "partial")
    assert [one["outcome"] for one in found["ranks"]] == ["applied", None]
    assert "rank 1: the engine's live-option socket did not answer" in found["reason"]
    path = socket_of(home, "mute")
    sockets = [path, path.with_name(f"{path.name}.1")]
    assert [one.is_socket() for one in sockets] == [True, True]
    home.run("stop", "mute", "--grace", "2")
    assert not any(one.exists() for one in sockets)


def test_a_rank_whose_socket_is_gone_is_missed(home: Home, url: str) -> None:
    path = socket_of(home, "two")
    second = path.with_name(f"{path.name}.1")
    second.rename(second.with_name("aside"))
    try:
        done = home.run("set", "two", "max_num_seqs=16")
        assert done.code == 1
        assert (
            "applied on 1 of 2 ranks; rank 1: the engine's live-option socket is gone" in done.err
        )
    finally:
        second.with_name("aside").rename(second)
    assert home.run("set", "two", "max_num_seqs=64").code == 0
