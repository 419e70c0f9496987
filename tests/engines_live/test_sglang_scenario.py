"""llmtop itself on real SGLang: started, watched, loaded, turned and stopped as a person would."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.engines_live.engine import Engine
from tests.engines_live.scenario import (
    NAME,
    alive,
    answers_follow_the_schema,
    drained,
    family,
    seen,
    told,
)
from tests.llmtop_process import Home, command

RUNNING = "sglang:num_running_reqs"


@pytest.fixture(scope="module")
def home(sglang_home: Home) -> Home:
    return sglang_home


@pytest.fixture(scope="module")
def engine(sglang_engine: Engine) -> Engine:
    return sglang_engine


def test_the_engine_is_described(home: Home, engine: Engine) -> None:
    found = told(home)
    assert (found["state"], found["version"]) == ("ready", "0.5.23")
    options = {o["name"]: o for o in home.run("options", NAME, "--json").json["options"]}
    assert options["max_running_requests"]["launch"] == 8
    assert options["max_running_requests"]["applies"] != "restart"
    assert options["chunked_prefill_size"]["value"] == 1024


def test_the_cap_turns_under_load_and_no_request_fails(home: Home, engine: Engine) -> None:
    def change(pair: str) -> None:
        done = home.run("set", NAME, pair, "--json")
        assert done.code == 0, done.err + done.out

    flags = ("-c", "8", "-d", "300", "--prompt-tokens", "64", "--output-tokens", "60")
    with subprocess.Popen(
        command("load", NAME, *flags, "--json"),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as load:
        seen(lambda: engine.metric(RUNNING) >= 6)
        sample = home.run("once", NAME, "--window", "3", "--json").json
        assert sample["kv_tokens_total"] == 8192
        assert sample["output_tokens_per_s"] > 0
        change("max_running_requests=3")
        seen(lambda: engine.metric(RUNNING) <= 3)  # it drains: the running ones finish
        change("max_running_requests=8")
        seen(lambda: engine.metric(RUNNING) >= 6)
        change("chunked_prefill_size=256")
        report = drained(load)
    assert report["requests"]["failed"] == 0, report["errors"]
    assert report["requests"]["ok"] > 8


def test_answers_follow_a_json_schema(home: Home, engine: Engine) -> None:
    answers_follow_the_schema(home, engine.url)


def test_stop_with_open_streams_ends_within_its_grace(home: Home, engine: Engine) -> None:
    pids = family(int(told(home)["pid"]))
    assert len(pids) >= 3  # HTTP server, scheduler, detokenizer
    flags = ("-c", "4", "-d", "300", "--prompt-tokens", "16", "--output-tokens", "900")
    with subprocess.Popen(
        command("load", NAME, *flags),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as load:
        try:
            seen(lambda: engine.metric(RUNNING) >= 4)
            begun = time.monotonic()  # by itself SGLang would wait until all is served
            done = home.run("stop", NAME, "--grace", "4")
            assert done.code == 0, done.err
            assert time.monotonic() - begun < 4 + 20  # the rest is a crowded machine
            assert [pid for pid in pids if alive(pid)] == []
        finally:
            load.kill()
    assert told(home)["state"] == "stopped"
