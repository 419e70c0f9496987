"""What befalls a real vLLM, and what llmtop makes of it: restarts, rollbacks, and sudden deaths.

The tests run in order: each takes the engine that the one before it left. What follows in other
files takes the last one.
"""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

from llmtop.engines.core.records import State
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.runtime import DashboardRuntime
from tests.engines_live.engine import START_S, Engine
from tests.engines_live.scenario import (
    NAME,
    alive,
    child,
    family,
    frozen_and_back,
    longest,
    server_dies,
    told,
    value,
    watcher_dies,
)
from tests.llmtop_process import Home

LEVEL = 4


@pytest.fixture(scope="module")
def home(vllm_home: Home, vllm_engine: Engine) -> Home:
    # The start-up phases were told. Not each of them: a quick one ends between two looks.
    phases = "configuring|engine process|weights|shards|KV cache|API server"
    assert len(set(re.findall(f"{NAME}: ({phases})", vllm_engine.told))) >= 2
    return vllm_home


def test_an_engine_that_a_signal_holds_is_unresponsive_until_it_goes_on(home: Home) -> None:
    pid = int(told(home)["pid"])
    frozen_and_back(home, pid)
    frozen_and_back(home, child(family(pid), "VLLM::EngineCore"))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGHUP])
def test_it_outlives_the_llmtop_that_watches(home: Home, signum: signal.Signals) -> None:
    watcher_dies(home, int(told(home)["pid"]), signum)


def test_an_option_that_needs_a_restart_gets_one(home: Home) -> None:
    pids = family(int(told(home)["pid"]))
    done = home.run(
        "set", NAME, "max_model_len=1024", "--restart", "--yes", "--json", timeout=START_S
    )
    assert done.code == 0, done.err
    assert f"{NAME}: restart, about " in done.err and "no request is in flight" in done.err
    restart = done.json["restart"]
    assert restart["outcome"] == "restarted" and restart["expected_s"] > 1
    assert restart["pid"] == told(home)["pid"] not in pids
    assert [pid for pid in pids if alive(pid)] == []
    assert longest(home) == value(home, "max_model_len") == 1024


def test_what_does_not_start_is_rolled_back_and_the_words_say_why(home: Home) -> None:
    # Four blocks of 32 tokens hold less than one request.
    done = home.run(
        *("restart", NAME, "max_num_seqs=8", "--json", "--", "--num-gpu-blocks-override", "4"),
        timeout=2 * START_S,
    )
    assert done.code == 1
    restart = done.json["restart"]
    assert restart["outcome"] == "rolled back"
    assert restart["reason"].startswith("the KV cache cannot hold even one request of ")
    assert "--max-model-len" in restart["advice"] and restart["log_excerpt"]
    assert not re.search(r"^Traceback", done.err, re.MULTILINE)  # of llmtop's own
    assert told(home)["state"] == "ready"
    assert (longest(home), value(home, "max_num_seqs")) == (1024, 16)


async def until(true: object, what: str, within_s: float = 240.0) -> None:
    assert callable(true)
    for _ in range(round(within_s / 0.05)):
        if true():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{what} did not come in time")


async def test_a_restart_under_load_fails_no_request_and_brings_the_load_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in home.environ.items():
        monkeypatch.setenv(name, text)
    wiring = Wiring(home.environ)
    stage = DashboardRuntime(
        wiring,
        [wiring.owned(NAME)],
        prompts=Prompts(prompt_tokens=(16, 16), output_tokens=(40, 40)),
        interval=0.5,
    )
    track = stage.store.engines[NAME]

    def load() -> LoadSnapshot:
        assert stage.load_source.load is not None
        return stage.load_source.load.snapshot()

    beats = asyncio.create_task(stage.sampling.run())
    try:
        await until(lambda: track.sample is not None, "a sample")
        await stage.controller.start(Plan(shape=f"hold {LEVEL}"))
        await until(lambda: load().ok > LEVEL, "the load")
        done = await stage.controller.restart(NAME, {"max_model_len": 512})
        assert not done.rolled_back, done.failure
        ok = load().ok
        await until(lambda: load().ok > ok + LEVEL, "the load again")
        after = load()
        assert (after.asked, after.failed, after.errors) == (LEVEL, 0, {})
        assert 0 < after.cut <= LEVEL
        assert track.status is not None and track.status.state is State.READY
        assert longest(home) == 512
        assert [mark.label for mark in track.marks][-2:] == [
            "restart",
            "max_model_len 1,024 -> 512",
        ]
        # An engine that gets no core for 8 s looks hung, and is called so while it is so.
        bad = [one for one in stage.store.events if one.level in ("error", "warning")]
        assert [one for one in bad if "hung: " not in one.text] == []
    finally:
        await stage.controller.quit(stop_engines=False)
        beats.cancel()
        await stage.sampling.close()
        stage.release()
        await wiring.fetch.close()


def test_what_a_killed_server_leaves_behind_is_ended_and_it_can_be_started_again(
    home: Home,
) -> None:
    server_dies(home)
    done = home.run("restart", NAME, "max_model_len=2048", "--yes", timeout=START_S)
    assert done.code == 0, done.err
    assert told(home)["state"] == "ready" and longest(home) == 2048
