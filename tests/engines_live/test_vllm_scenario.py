"""llmtop itself on real vLLM: started, watched, loaded, turned and stopped as a person would."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

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
from tests.engines_live.vllm_served import CAP, KV_TOKENS
from tests.llmtop_process import Home, command
from tests.terminal import Terminal

RUNNING = "vllm:num_requests_running"


@pytest.fixture(scope="module")
def home(vllm_home: Home) -> Home:
    return vllm_home


@pytest.fixture(scope="module")
def engine(vllm_engine: Engine) -> Engine:
    assert vllm_engine.home.run("set", NAME, f"max_num_seqs={CAP}").code == 0
    return vllm_engine


def start_load(home: Home, seconds: int) -> subprocess.Popen[str]:
    """16 streams whose text n-gram speculation guesses well."""
    flags = ("-c", "16", "-d", str(seconds), "--prompt-tokens", "64", "--output-tokens", "200")
    return subprocess.Popen(
        command("load", NAME, *flags, "--repetitive", "--temperature", "0", "--json"),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_the_engine_is_described(home: Home, engine: Engine) -> None:
    found = told(home)
    assert (found["state"], found["version"], found["simulated"]) == ("ready", "0.32.0", False)
    options = {o["name"]: o for o in home.run("options", NAME, "--json").json["options"]}
    assert options["max_num_seqs"]["launch"] == 16
    assert options["num_speculative_tokens"]["applies"].startswith("live")
    assert options["max_model_len"]["value"] == 2048
    assert options["max_model_len"]["applies"] == "restart"


def test_knobs_turn_under_load_and_no_request_fails(home: Home, engine: Engine) -> None:
    def running() -> float:
        return engine.metric(RUNNING)

    def drafts() -> float:
        return engine.metric("vllm:spec_decode_num_drafts_total")

    def made() -> float:
        return engine.metric("vllm:generation_tokens_total")

    def change(*pairs: str) -> None:
        done = home.run("set", NAME, *pairs, "--json")
        assert done.code == 0, done.err
        assert {c["outcome"] for c in done.json["changes"]} == {"applied"}, done.out

    def served() -> float:
        return engine.metric("vllm:request_success_total")

    already = served()
    with start_load(home, 300) as load:
        seen(lambda: running() >= 14)
        change("max_num_seqs=2", "--evict")
        engine.soon(lambda: running() <= 2)
        change("max_num_seqs=16")
        engine.soon(lambda: running() >= 14)
        sample = home.run("once", NAME, "--window", "2", "--json").json
        assert sample["kv_tokens_total"] == KV_TOKENS
        assert 0 < sample["kv_usage"] < 1
        assert sample["output_tokens_per_s"] > 0
        assert sample["spec_acceptance"] is not None

        change("num_speculative_tokens=0")
        engine.settle()
        before = drafts()
        tokens = made()
        seen(lambda: made() > tokens + 50)
        assert drafts() == before, "drafts were made with speculation off"
        change("num_speculative_tokens=4")
        engine.soon(lambda: drafts() > before)
        seen(lambda: served() > already + 16)
        report = drained(load)
    assert report["requests"]["failed"] == 0, report["errors"]
    assert report["requests"]["cut"] == 0
    assert report["requests"]["ok"] > 16
    assert report["output_tokens"] == 200 * report["requests"]["ok"]


def test_the_options_panel_turns_the_real_engine(home: Home, engine: Engine) -> None:
    def number(text: str) -> int:
        found = re.search(r"run (\d+)", text)
        return int(found[1]) if found else -1

    load = start_load(home, 300)
    with load, Terminal(command(), home.environ) as screen:
        screen.see(lambda text: number(text) >= 14, 60)
        screen.type("o")
        screen.see("max_num_seqs")
        screen.type("\r3")
        screen.type("e")  # evict, do not wait for them to finish
        screen.type("\r")
        screen.see(lambda text: 0 <= number(text) <= 3, 30)
        assert engine.metric(RUNNING) <= 3
        assert home.run("set", NAME, "max_num_seqs=16").code == 0
        screen.type("\x1b")
        screen.see("q quit")
        screen.type("q")
        screen.see("leave")
        screen.type("\r")
        assert screen.wait() == 0
        report = drained(load)
    assert (report["requests"]["failed"], report["requests"]["cut"]) == (0, 0)


def test_answers_follow_a_json_schema(home: Home, engine: Engine) -> None:
    answers_follow_the_schema(home, engine.url)


def test_stop_with_open_streams_ends_within_its_grace(home: Home, engine: Engine) -> None:
    pids = family(int(told(home)["pid"]))
    assert len(pids) >= 3  # API server, engine core, and Python's own tracker
    with start_load(home, 300) as load:
        try:
            seen(lambda: engine.metric(RUNNING) >= 14)
            begun = time.monotonic()  # by itself vLLM would wait for its clients, which do not go
            done = home.run("stop", NAME, "--grace", "4")
            assert done.code == 0, done.err
            assert time.monotonic() - begun < 4 + 20  # the rest is a crowded machine
            assert [one for one in pids if alive(one)] == []
        finally:
            load.kill()
    assert told(home)["state"] == "stopped"


def test_a_flag_that_vllm_does_not_know_is_explained(
    home: Home, vllm_program: Path, small_model: Path
) -> None:
    done = home.run(
        *("run", "vllm", str(small_model), "--bin", str(vllm_program), "--name", "wrong"),
        *("--detach", "--json", "--", "--max-num-sequences-at-once", "4"),
        timeout=120,
    )
    assert done.code == 1
    assert "--max-num-sequences-at-once" in done.err
    assert "Traceback" not in done.err
    (record,) = [e for e in home.run("ps", "--json").json["engines"] if e["name"] == "wrong"]
    assert record["state"] == "failed"
    assert not alive(int(record["pid"]))
