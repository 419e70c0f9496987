"""Steps, requests and aborts from the command line, on a simulated engine with two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmtop.cli.common.inside_documents import (
    DOCUMENTS,
    AbortDocument,
    RequestsDocument,
    StepsDocument,
    WhyDocument,
    schema,
)
from tests.engine_page import gauge
from tests.folders import ROOT
from tests.llmtop_process import Home, command, free_port

pytestmark = pytest.mark.process

STREAMS = 12
FLAGS = ("--startup-s", "0.2", "--max-num-seqs", "4", "--data-parallel-size", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with the engine ``one`` under load: 8 requests run, 4 wait."""
    home = Home.make(tmp_path_factory.mktemp("home"))
    port = str(free_port())
    done = home.run("run", "sim", "--detach", "--name", "one", "--port", port, "--", *FLAGS)
    assert done.code == 0, done.err
    flags = ("-c", str(STREAMS), "-d", "600", "--prompt-tokens", "16", "--output-tokens", "8000",
             "--no-calibrate")  # fmt: skip
    load = subprocess.Popen(
        command("load", "one", *flags, "--json"),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = home.url("one")
        wait(lambda: sum(gauge(url, "num_requests_waiting")) == 4)
        yield home
    finally:
        load.kill()
        load.wait()
        home.stop_all()


def wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def requests(home: Home, *flags: str) -> dict[str, Any]:
    done = home.run("requests", "one", "--json", *flags)
    assert done.code == 0, done.err
    return dict(done.json)


def all_full(home: Home) -> bool:
    """Whether the last steps are of full batches."""
    steps = home.run("steps", "one", "--json", "--last", "60").json["steps"]
    return len(steps) == 60 and {step["running"] for step in steps} == {4}


def test_steps_as_json_and_as_a_table(home: Home) -> None:
    wait(lambda: all_full(home))  # an engine that has just been loaded has earlier steps too
    done = home.run("steps", "one", "--json", "--last", "30")
    found = msgspec.json.decode(done.out, type=StepsDocument)
    assert (found.name, found.ranks, found.lost, len(found.steps)) == ("one", 2, 0, 30)
    assert [step.end for step in found.steps] == sorted(step.end for step in found.steps)
    for rank in (0, 1):
        numbers = [step.seq for step in found.steps if step.rank == rank]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {step.running for step in found.steps} == {4}
    assert "launch_s" in found.missing

    done = home.run("steps", "one", "--last", "5", "--rank", "1")
    head, *rows = done.out.splitlines()
    assert head.split()[:3] == ["RANK", "SEQ", "TOOK"]
    assert [row.split()[0] for row in rows[:5]] == ["1"] * 5
    assert rows[5].startswith("5 steps: p50 ")

    done = home.run("steps", "one", "--rank", "7")
    assert done.code == 2 and "one has no rank 7" in done.err and "ranks 0 to 1" in done.err


def test_requests_as_json_and_as_a_table(home: Home) -> None:
    found = msgspec.convert(requests(home, "--sort", "wait"), RequestsDocument)
    assert (found.running, found.waiting, len(found.requests)) == (8, 4, 12)
    states = [row.state for row in found.requests]
    assert states == ["waiting"] * 4 + ["running"] * 8
    assert {row.rank for row in found.requests} == {0, 1}
    assert len(requests(home, "--limit", "3")["requests"]) == 3
    every = home.run("requests", "one").out.splitlines()
    assert every[0].split()[:3] == ["ID", "RANK", "STATE"]
    shown = home.run("requests", "one", "--limit", "2").out.splitlines()
    assert shown[-1] == "running 8  waiting 4  (2 of 12 shown)"


def test_aborts_by_id_and_by_waiting_time(home: Home) -> None:
    oldest = requests(home, "--limit", "1")["requests"][0]["id"]
    done = home.run("abort", "one", oldest, "never", "--json")
    found = msgspec.json.decode(done.out, type=AbortDocument)
    assert (found.aborted, found.ended_before, found.refused) == ([oldest], ["never"], [])
    assert done.code == 0
    assert oldest not in {row["id"] for row in requests(home)["requests"]}

    empty = home.run("abort", "one", "")
    assert empty.code == 2 and "an id is empty" in empty.err
    none = home.run("abort", "one", "--waiting-longer-than", "1h")
    assert none.out == "aborted 0 requests that had waited longer than 1h00m\n"
    wait(lambda: requests(home)["waiting"] == 4)  # the load sends another for the aborted one
    late = home.run("abort", "one", "--waiting-longer-than", "0s", "--yes", "--json")
    assert len(late.json["aborted"]) >= 4  # the load sends new ones
    log = home.run("logs", "one").out
    assert "requests aborted, requested by" in log
    assert "waited longer than" in log


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("abort", "one"), 2, "there is nothing to abort"),
        (("abort", "one", "x", "--waiting-longer-than", "1s"), 2, "not both"),
        (("abort", "one", "--waiting-longer-than", "0"), 2, "add --yes to agree"),
        (("forecast", "one", "max_num_sqs=3"), 2, "did you mean max_num_seqs?"),
        (("steps", "nobody"), 2, "no engine named 'nobody'"),
        (("steps", "one", "--last", "0"), 2, "--last"),
        (("requests", "one", "--limit", "99"), 2, "--limit"),
    ],
)
def test_what_cannot_be_asked(
    home: Home, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = home.run(*arguments)
    assert done.code == code
    assert words in done.err


def test_a_frozen_engine_is_named_at_once_by_each_command(home: Home) -> None:
    pid = int(home.run("ps", "--json").json["engines"][0]["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        for arguments in (
            ("why", "one"),
            ("steps", "one"),
            ("forecast", "one"),
            ("tune", "one", "--slo", "ttft=1s", "--concurrency", "3"),
            ("hold", "one", "--slo", "ttft=1s", "--yes"),
        ):
            done = home.run(*arguments)
            assert done.code == 1 and "one is frozen: stopped by a signal" in done.err, done.err
            assert f"kill -CONT {pid}" in done.err
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_engine_of_somebody_else_is_not_looked_into(home: Home, tmp_path: Path) -> None:
    url = home.run("ps", "--json").json["engines"][0]["url"]
    done = Home.make(tmp_path).run("steps", url)
    assert done.code == 1
    assert "only for engines started by llmtop" in done.err


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schemas_are_those_of_the_documents(name: str) -> None:
    published = ROOT / "docs" / "schema" / f"{name}.schema.json"
    assert json.loads(published.read_text()) == json.loads(json.dumps(schema(name))), "make schema"


def test_why_names_the_batch_limit_with_its_evidence(home: Home) -> None:
    def why() -> WhyDocument:
        return msgspec.json.decode(home.run("why", "one", "--json").out, type=WhyDocument)

    def settled() -> bool:
        """Steps of before the aborts and the stop above count for some seconds."""
        share = why().causes[0].share
        return why().state == "saturated" and share == pytest.approx(4 / 12, abs=0.05)

    wait(settled)
    found = why()
    assert (found.name, found.state) == ("one", "saturated") and found.steps > 20
    first = found.causes[0]
    assert first.cause == "batch_limit" and first.share == pytest.approx(4 / 12, abs=0.1)
    # The limit is that of the launch: a restart is no advice where its gain is not known.
    if first.knob is not None:
        assert (first.knob.option, first.knob.before) == ("max_num_seqs", 4)

    done = home.run("why", "one")
    assert done.code == 0 and "batch limit 8 reached, 4 waiting" in done.out
    if first.knob is None:
        assert "max_num_seqs=" not in done.out


@pytest.mark.more
@pytest.mark.parametrize(
    ("misbehave", "cause"), [("slow-host", "host"), ("slow-front", "front_end")]
)
def test_why_names_what_is_slow_on_purpose(home: Home, misbehave: str, cause: str) -> None:
    flags = ("--startup-s", "0.2", "--misbehave", misbehave)
    port = str(free_port())
    done = home.run("run", "sim", "--detach", "--name", misbehave, "--port", port, "--", *flags)
    assert done.code == 0, done.err
    load = subprocess.Popen(
        command("load", misbehave, "-c", "8", "-d", "600", "--json", "--output-tokens", "32"),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def named() -> bool:
        return bool(home.run("why", misbehave, "--json").json["causes"][0]["cause"] == cause)

    try:
        wait(named)
    finally:
        load.kill()
        load.wait()
        home.run("stop", misbehave)
