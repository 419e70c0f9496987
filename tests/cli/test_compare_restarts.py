"""``llmtop compare`` of options that need a restart, on simulated engines as real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.llmtop_process import Home, command, free_port

pytestmark = pytest.mark.process

ENGINE = "one"
CAP = 6  # max_num_seqs at launch
SHORT = (
    "--no-calibrate",
    "--prompt-tokens",
    "16",
    "--output-tokens",
    "2",
    "--workers",
    "1",
    "--pairs",
    "4",
    "-c",
    "4",
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path)
    started = home.run(
        "run", "sim", "--detach", "--name", ENGINE, "--port", str(free_port()), "--",
        "--startup-s", "0.2", "--max-num-seqs", str(CAP), "--seed", "7",
    )  # fmt: skip
    assert started.code == 0, started.err
    yield home
    home.stop_all()


def engine(home: Home) -> dict[str, Any]:
    (found,) = home.run("ps", "--json").json["engines"]
    return dict(found)


def arguments(home: Home) -> list[str]:
    """What the running engine was started with."""
    return Path(f"/proc/{engine(home)['pid']}/cmdline").read_text().split("\0")


def values(home: Home) -> dict[str, Any]:
    listed = home.run("options", ENGINE, "--json").json["options"]
    return {one["name"]: one["value"] for one in listed}


def starts(home: Home) -> list[str]:
    """The line of each start, from the engine's logs."""
    log = Path(str(engine(home)["log_path"]))
    text = "".join(path.read_text() for path in log.parent.glob(f"{log.name}*"))
    return [line for line in text.splitlines() if line.startswith("=== llmtop")]


@pytest.mark.more
def test_each_arm_is_started_for_as_seldom_as_abba_allows(home: Home) -> None:
    before = arguments(home)
    done = home.run(
        "compare", ENGINE, "--a", "max_model_len=8192", "--b", "max_model_len=4096",
        "--b", "max_num_seqs=12", "--run-seconds", "0.5", *SHORT, "--yes", "--json", timeout=300,
    )  # fmt: skip
    found = done.json
    orders = [pair["order"] for pair in found["pairs"]]
    assert orders[:6] == ["AA", "AA", "AB", "BA", "AB", "BA"][: len(orders)]
    # It ends after three pairs where this machine has no room for the client.
    assert len(orders) >= 6 or found["pairs_left_out"] == len(orders) == 3
    if found["pairs_left_out"] == 0:
        assert done.code == 0, done.err
        # A is how it runs already, and it ends with A. Two neighbours that are alike share a start:
        # B, A, B, A, and more where a pair was run again because the client was in its way.
        runs = "A" + "".join(orders) + "A"
        changes = sum(one != other for one, other in pairwise(runs))
        assert changes == 4 or len(orders) > 6
        assert found["restarts"] == changes
        assert len(starts(home)) == 1 + changes
    assert found["a"]["label"] == f"max_model_len=8192,max_num_seqs={CAP}"
    assert found["b"]["label"] == "max_model_len=4096,max_num_seqs=12"
    # What it costs is said before it is done, by the engine's own last start.
    first = done.err.splitlines()[0]
    assert "max_model_len takes effect only at a restart" in first
    assert f"{ENGINE} is restarted 4 times, about " in first and "in all" in first
    assert arguments(home) == before
    assert engine(home)["state"] == "ready"


@pytest.mark.more
def test_live_values_are_switched_live_where_both_arms_share_a_start(home: Home) -> None:
    # Somebody had set this as it ran; a restart must not lose it.
    assert home.run("set", ENGINE, "max_num_batched_tokens=1024").code == 0
    done = home.run(
        "compare", ENGINE, "--a", "max_model_len=4096", "--a", "max_num_seqs=2",
        "--b", "max_model_len=4096", "--b", "max_num_seqs=5", "--run-seconds", "0.5", *SHORT,
        "--yes", "--json", timeout=300,
    )  # fmt: skip
    assert "restarted 2 times" in done.err.splitlines()[0]  # once for both, and once back
    assert done.json["restarts"] == 1
    now = values(home)
    assert (now["max_model_len"], now["max_num_seqs"]) == (8192, CAP)
    assert now["max_num_batched_tokens"] == 1024
    assert len(starts(home)) == 3


@pytest.mark.more
def test_an_arm_that_does_not_start_ends_it_with_the_reason_and_the_engine_as_it_was(
    home: Home,
) -> None:
    before = arguments(home)
    done = home.run(
        "compare", ENGINE, "--a", "max_model_len=100000000", "--b", "max_model_len=4096",
        "--run-seconds", "0.5", *SHORT, "--yes", "--json", timeout=300,
    )  # fmt: skip
    assert done.code == 1
    assert "does not start with max_model_len=100000000" in done.err
    assert "Traceback" not in done.err
    found = done.json
    assert found["complete"] is False and found["restarts"] == 0
    assert found["pairs"] == []
    assert arguments(home) == before and engine(home)["state"] == "ready"


@pytest.mark.more
def test_a_polite_kill_gets_the_engine_back_as_it_was(home: Home) -> None:
    before, pid = arguments(home), engine(home)["pid"]
    process = subprocess.Popen(
        command("compare", ENGINE, "--a", "max_model_len=4096", "--b", "max_model_len=2048",
                "--run-seconds", "600", *SHORT, "--yes", "--json"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while engine(home)["pid"] == pid or engine(home)["state"] != "ready":
            assert time.monotonic() < deadline and process.poll() is None
        assert "4096" in arguments(home)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads(out)["complete"] is False
    assert arguments(home) == before and engine(home)["state"] == "ready"


@pytest.mark.more
def test_ended_in_the_middle_of_a_start_it_comes_back_too(home: Home) -> None:
    slow = home.run("restart", ENGINE, "--yes", "--", "--startup-s", "3")
    assert slow.code == 0, slow.err
    before, pid = arguments(home), engine(home)["pid"]
    process = subprocess.Popen(
        command("compare", ENGINE, "--a", "max_model_len=4096", "--b", "max_model_len=2048", *SHORT,
                "--yes", "--json"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while (now := engine(home))["pid"] == pid or now["state"] != "starting":
            assert time.monotonic() < deadline and process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert arguments(home) == before and engine(home)["state"] == "ready"


@pytest.mark.more
def test_what_somebody_else_stopped_is_left_stopped(home: Home) -> None:
    process = subprocess.Popen(
        command("compare", ENGINE, "--a", "max_model_len=8192", "--b", "max_model_len=2048",
                "--run-seconds", "600", *SHORT, "--yes"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        process.stderr.readline()  # the cost
        assert "run 1 of" in process.stderr.readline()
        assert home.run("stop", ENGINE).code == 0
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert engine(home)["state"] == "stopped"


def test_without_leave_nothing_is_restarted(home: Home) -> None:
    pid = engine(home)["pid"]
    done = home.run(
        "compare", ENGINE, "--a", "max_model_len=8192", "--b", "max_model_len=4096", *SHORT
    )
    assert done.code == 2
    assert "restarted 4 times" in done.err and "--yes" in done.err
    assert len(done.err.splitlines()) == 2
    assert engine(home)["pid"] == pid
