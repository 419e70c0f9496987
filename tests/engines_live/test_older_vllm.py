"""An older vLLM: its inside is found by inspection, and is true as in the newest.

One engine serves the whole file. The tests run in order; the last one breaks the plugin for good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.core.latencies import LatencyHistogram
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME
from tests.engines_live.vllm_inside import (
    BY_REQUEST,
    OUTPUT_TOKENS,
    RUNNING,
    SABOTEUR,
    aborted_and_told,
    aborted_wherever_they_are,
    applied,
    evicted,
    inside,
    introspection_breaks,
    refused_above_the_limit,
    state,
    steps_hold_the_tokens,
)
from tests.engines_live.vllm_served import ONE_PROCESS, VARIABLES
from tests.llmtop_process import Home


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, older_vllm_program: Path, small_model: Path
) -> Iterator[Engine]:
    # It takes the core that the engine beside it leaves.
    extra = {**VARIABLES, "LLMTOP_TEST_ENGINE_CPU": ""}
    home = Home.make(tmp_path_factory.mktemp("home"), extra=extra, path=(SABOTEUR,))
    yield Engine.run(home, "vllm", small_model, older_vllm_program, *ONE_PROCESS)
    home.stop_all()


def test_all_of_it_is_found_by_inspection(engine: Engine, older_vllm_program: Path) -> None:
    found = state(engine)
    assert f"vllm-{found.version}" == older_vllm_program.parent.parent.name
    assert {name: option.launch for name, option in found.options.items()} == {
        "max_num_seqs": 16,
        "max_num_batched_tokens": 2048,
        "num_speculative_tokens": 4,
        "long_prefill_token_threshold": 0,
        "scheduling_policy": 0,
    }
    about = asyncio.run(inside(engine).abilities())
    assert about.abilities == {"steps", "latencies", "requests", "abort"}
    assert (about.missing, about.ranks, about.front_ends) == ({}, 1, 1)


def test_the_steps_hold_the_tokens_that_the_engine_counts(engine: Engine) -> None:
    steps_hold_the_tokens(engine)


def test_percentiles_are_exact_and_no_longer_than_the_client_waited(engine: Engine) -> None:
    follow = inside(engine)
    before = asyncio.run(follow.latencies()).histograms
    begun = time.monotonic()
    assert engine.stream("how long does this take", 20).tokens == 20
    waited = time.monotonic() - begun

    def new() -> dict[str, LatencyHistogram]:
        now = asyncio.run(follow.latencies()).histograms
        return {name: now[name].minus(before[name]) for name in BY_REQUEST}

    # An answer is kept for 0.2 s.
    engine.eventually(lambda: {one.count for one in new().values()} == {1})
    took = {name: one.quantile(0.5) or 0.0 for name, one in new().items()}
    # A bucket is 0.8 % wide, so that one request is known to 1 %.
    assert 0 < took["prefill"] <= 1.01 * took["ttft"] <= 1.01**2 * took["e2e"]
    assert took["e2e"] <= 1.01 * waited
    shown = engine.home.run("once", NAME, "--json").json
    assert shown["ttft_s"]["exact_within"] == 0.01


def test_a_request_is_seen_and_aborted_and_its_client_is_told(engine: Engine) -> None:
    aborted_and_told(engine)


def test_aborts_in_a_prompt_in_the_queue_and_while_preempted_leak_nothing(engine: Engine) -> None:
    aborted_wherever_they_are(engine)


def test_a_lower_batch_limit_puts_requests_back_and_none_fails(engine: Engine) -> None:
    with engine.under_load(streams=8, tokens=40, repeats=1) as load:
        engine.eventually(lambda: engine.metric(RUNNING) == 8)
        assert evicted(engine) > 0
        engine.eventually(lambda: engine.metric(RUNNING) <= 2)
        applied(engine, max_num_seqs=16)
        engine.eventually(lambda: engine.metric(RUNNING) > 2)
    assert load.failed == []


def test_requests_above_the_queue_limit_are_refused_at_once(engine: Engine) -> None:
    refused_above_the_limit(engine)


def test_speculation_off_and_on_under_load(engine: Engine) -> None:
    follow = inside(engine)

    def drafted() -> int:
        """In the steps of the next 30 tokens."""
        engine.settle()  # what was drafted before is still being looked at
        asyncio.run(follow.steps())
        made = engine.metric(OUTPUT_TOKENS)
        engine.eventually(lambda: engine.metric(OUTPUT_TOKENS) > made + 30)
        return sum(step.draft_tokens or 0 for step in asyncio.run(follow.steps()).steps)

    with engine.under_load(streams=4, tokens=60) as load:
        applied(engine, num_speculative_tokens=0)
        assert drafted() == 0
        applied(engine, num_speculative_tokens=4)
        engine.eventually(lambda: drafted() > 0)
    assert load.failed == []


def test_when_introspection_breaks_the_options_and_the_engine_stay(engine: Engine) -> None:
    introspection_breaks(engine)
