"""The live options of a real vLLM under load, and the guard around them.

One engine serves the whole file, with an n-gram drafter of a fixed number of drafts. The tests run
in order and leave the launch values behind them; the last ones break the plugin for good, and then
the engine core.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable

import pytest

from llmtop.engines.core.options import Outcome
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, PATIENT_S, child, died, family
from tests.engines_live.vllm_inside import (
    DRAFT_TOKENS,
    DRAFTS,
    OUTPUT_TOKENS,
    RUNNING,
    SABOTEUR,
    aborted_and_told,
    aborted_wherever_they_are,
    applied,
    change,
    evicted,
    introspection_breaks,
    refused_above_the_limit,
    state,
    steps_hold_the_tokens,
)
from tests.engines_live.vllm_served import ONE_PROCESS


@pytest.fixture(scope="module")
def engine(start_vllm: Callable[..., Engine]) -> Engine:
    return start_vllm(*ONE_PROCESS, path=(SABOTEUR,))


def full(engine: Engine) -> bool:
    return engine.metric(RUNNING) >= 15


def test_it_tells_what_can_be_changed(engine: Engine) -> None:
    found = state(engine)
    assert found.engine == "vllm"
    assert found.version.startswith("0.32")
    assert {name: option.launch for name, option in found.options.items()} == {
        "max_num_seqs": 16,
        "max_num_batched_tokens": 2048,
        "num_speculative_tokens": 4,
        "long_prefill_token_threshold": 0,
        "scheduling_policy": 0,
    }
    assert found.options["scheduling_policy"].choices == ("fcfs", "priority")
    assert found.options["max_num_batched_tokens"].minimum == 5
    assert "full cost" in found.options["num_speculative_tokens"].note
    assert found.disabled is None
    assert engine.socket.stat().st_mode & 0o777 == 0o600
    assert engine.socket.parent.stat().st_mode & 0o777 == 0o700


def test_an_idle_engine_takes_a_change_at_once(engine: Engine) -> None:
    applied(engine, max_num_seqs=8)
    now = state(engine)
    assert (now.options["max_num_seqs"].value, now.options["max_num_seqs"].pending) == (8, None)
    assert (now.history[-1].by, now.history[-1].before, now.history[-1].after) == ("test", 16, 8)
    assert engine.stream("once more", 5).tokens == 5


def test_max_num_seqs_under_load_with_eviction_and_without(engine: Engine) -> None:
    # Short prompts: what a raised cap lets in shows after the step that reads fourteen of them, and
    # with long ones that step alone took 2.1 s of a crowded core.
    with engine.under_load(repeats=1) as load:
        engine.eventually(lambda: engine.metric(RUNNING) == 8)  # the change before this one
        applied(engine, max_num_seqs=16)
        engine.soon(lambda: full(engine))

        back = evicted(engine)
        engine.soon(lambda: engine.metric(RUNNING) <= 2)
        applied(engine, max_num_seqs=16)
        engine.soon(lambda: full(engine))

        draining = applied(engine, max_num_seqs=2)
        assert draining.evicted == 0
        engine.eventually(lambda: engine.metric(RUNNING) <= 2)  # as they finish
        applied(engine, max_num_seqs=16)
        engine.soon(lambda: full(engine))
    assert load.failed == []
    assert state(engine).evicted_total == back


def test_the_token_budget_under_load(engine: Engine) -> None:
    def busy_steps() -> float:
        # Steps that made 9 to 64 tokens: sixteen streams decoding. A finished prompt counts with
        # all of its tokens, which are more than 64 here.
        counts = engine.buckets("vllm:iteration_tokens_total")
        return counts["64.0"] - counts["8.0"]

    with engine.under_load() as load:
        before = busy_steps()
        engine.eventually(lambda: busy_steps() > before + 5)
        applied(engine, max_num_batched_tokens=5)
        engine.settle()
        before, made = busy_steps(), engine.metric(OUTPUT_TOKENS)
        engine.eventually(lambda: engine.metric(OUTPUT_TOKENS) > made + 50)
        assert busy_steps() == before
        applied(engine, max_num_batched_tokens=2048)
        engine.eventually(lambda: busy_steps() > before + 5)
    assert load.failed == []


def test_speculation_off_and_on_under_load(engine: Engine) -> None:
    def drafted() -> tuple[float, float]:
        """Drafts of twenty steps, or of more until there are five, and their tokens."""
        before = engine.metrics(DRAFTS, DRAFT_TOKENS)
        engine.settle(20)
        engine.eventually(lambda: engine.metric(DRAFTS) >= before[0] + 5)
        drafts, tokens = engine.metrics(DRAFTS, DRAFT_TOKENS)
        return drafts - before[0], tokens - before[1]

    with engine.under_load() as load:
        start = engine.metric(DRAFT_TOKENS)
        engine.eventually(lambda: engine.metric(DRAFT_TOKENS) > start + 50)

        applied(engine, num_speculative_tokens=0)
        engine.settle()
        off, made = engine.metrics(DRAFTS, DRAFT_TOKENS), engine.metric(OUTPUT_TOKENS)
        engine.settle(20)
        assert engine.metric(OUTPUT_TOKENS) > made
        assert engine.metrics(DRAFTS, DRAFT_TOKENS) == off

        applied(engine, num_speculative_tokens=2)
        engine.settle()
        drafts, tokens = drafted()
        assert 0 < drafts <= tokens <= 2 * drafts

        applied(engine, num_speculative_tokens=4)
        engine.settle()
        drafts, tokens = drafted()
        assert tokens > 2 * drafts > 0
    assert load.failed == []


def test_what_cannot_be_is_refused_with_the_reason(engine: Engine) -> None:
    refused = change(
        engine,
        max_num_seqs=17,
        max_num_batched_tokens=4,
        num_speculative_tokens=-1,
        gpu_memory_utilization=1,
    )
    assert [one.outcome for one in refused] == [Outcome.REFUSED] * 4
    assert [one.reason for one in refused][:3] == [
        "must lie between 1 and 16 (the launch value)",
        "must lie between 5 and 2048 (the launch value)",
        "must lie between 0 and 4 (the launch value)",
    ]
    found = state(engine)
    assert all(o.value == o.launch and o.pending is None for o in found.options.values())


def test_nonsense_on_the_socket_harms_nothing(engine: Engine) -> None:
    with engine.under_load(streams=4, tokens=60) as load:
        for line in (b"\n", b"[]\n", b"\xff\xfe\n", b"[" * 60_000 + b"\n", b'{"op": "exit"}\n'):
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.settimeout(PATIENT_S)
                visitor.connect(str(engine.socket))
                visitor.sendall(line)
                assert json.loads(visitor.recv(65536))["ok"] is False
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(PATIENT_S)
            visitor.connect(str(engine.socket))
            visitor.sendall(b"x" * 70_000)
            assert json.loads(visitor.recv(65536))["error"] == "line longer than 64 KiB"
            assert visitor.recv(1) == b""
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(engine.socket))
            visitor.sendall(b'{"op": "se')  # and gone
        assert state(engine).disabled is None
    assert load.failed == []


def test_the_steps_hold_the_tokens_that_the_engine_counts(engine: Engine) -> None:
    steps_hold_the_tokens(engine)


def test_a_request_is_seen_and_aborted_and_its_client_is_told(engine: Engine) -> None:
    aborted_and_told(engine)


def test_aborts_in_a_prompt_in_the_queue_and_while_preempted_leak_nothing(engine: Engine) -> None:
    aborted_wherever_they_are(engine)


def test_requests_above_the_queue_limit_are_refused_at_once(engine: Engine) -> None:
    refused_above_the_limit(engine)


def test_the_order_of_the_queue_and_the_prefill_threshold_change_live(engine: Engine) -> None:
    done = engine.home.run(
        *("set", NAME, "scheduling_policy=priority", "long_prefill_token_threshold=64")
    )
    assert done.code == 0, done.err
    assert "scheduling_policy fcfs -> priority: applied" in done.err
    with engine.under_load(streams=20, tokens=10) as load:
        engine.eventually(lambda: len(load.finished) >= 20)
        done = engine.home.run(
            *("set", NAME, "scheduling_policy=fcfs", "long_prefill_token_threshold=0")
        )
        assert done.code == 0, done.err
    assert load.failed == []


def test_when_introspection_breaks_the_options_and_the_engine_stay(engine: Engine) -> None:
    introspection_breaks(engine)


def test_when_our_part_breaks_the_engine_goes_on_as_it_was_launched(engine: Engine) -> None:
    with engine.under_load() as load:
        engine.eventually(lambda: full(engine))
        applied(engine, max_num_seqs=4, evict=True)
        applied(engine, num_speculative_tokens=0)
        engine.soon(lambda: engine.metric(RUNNING) <= 4)

        (broken,) = change(engine, max_num_batched_tokens=777)  # the saboteur raises

        assert broken.outcome is Outcome.REFUSED
        assert "sabotaged" in (broken.reason or "")
        found = state(engine)
        assert "TypeError" in (found.disabled or "")
        assert all(option.value == option.launch for option in found.options.values())
        engine.soon(lambda: full(engine))
        drafted = engine.metric(DRAFT_TOKENS)
        engine.eventually(lambda: engine.metric(DRAFT_TOKENS) > drafted + 50)

        (late,) = change(engine, max_num_seqs=4)
        assert late.outcome is Outcome.REFUSED
        assert "switched off" in (late.reason or "")
        # Also those that came after it are served to their end.
        engine.eventually(lambda: len(load.finished) > 16)
    assert load.failed == []
    assert engine.healthy()
    assert "launch values restored" in engine.log.read_text(errors="replace")


def test_a_killed_engine_core_is_no_clean_stop(engine: Engine) -> None:
    # The API server then leaves with exit code 0, by itself.
    pids = family(engine.pid)
    os.kill(child(pids, "VLLM::EngineCore"), signal.SIGKILL)
    assert died(engine.home, pids)["detail"] == "the engine core died"
