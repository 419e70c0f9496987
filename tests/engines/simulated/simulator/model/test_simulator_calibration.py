"""The H200 profile against a recorded vLLM on an H200, in virtual time."""

from __future__ import annotations

import json
import random
from statistics import median
from typing import Any

import pytest

from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import (
    BLOCK_SIZE,
    GPUS,
    MODELS,
    kv_blocks,
    kv_cache_gib,
)
from llmtop.engines.simulated.simulator.model.roofline import Roofline, StepLoad
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from tests.closed_loop import ClosedLoop, Lengths, StepResult, run
from tests.folders import TESTS

RECORDED: dict[str, Any] = json.loads((TESTS / "data" / "simulator_vllm_h200.json").read_text())
H200, LLAMA_8B = GPUS["h200"], MODELS["llama-3.1-8b"]


@pytest.fixture(scope="module")
def simulated() -> list[StepResult]:
    blocks = kv_blocks(kv_cache_gib(H200, LLAMA_8B, 0.92, 1), LLAMA_8B, 1)
    limits = Limits(H200.max_num_seqs, H200.max_num_batched_tokens)
    loop = ClosedLoop(
        Scheduler(limits, BlockPool(blocks, BLOCK_SIZE), random.Random(0)),
        Roofline.of(H200, LLAMA_8B),
        Lengths(tuple(RECORDED["prompt_tokens"]), tuple(RECORDED["output_tokens"])),
        random.Random(1),
    )
    steps = [(step["concurrency"], step["seconds"]) for step in RECORDED["steps"]]
    return run(loop, steps, RECORDED["warm_up_s"])


def errors(simulated: list[StepResult], name: str) -> list[float]:
    pairs = zip(simulated, RECORDED["steps"], strict=True)
    return [abs(getattr(result, name) / step[name] - 1) for result, step in pairs]


@pytest.mark.parametrize(
    ("name", "middle", "worst"),
    [
        ("output_tokens_per_s", 0.05, 0.10),
        ("itl_ms", 0.10, 0.45),
        ("tpot_ms", 0.10, 0.30),
        ("ttft_ms", 0.10, 0.30),
    ],
)
def test_the_curve_is_that_of_the_recording(
    simulated: list[StepResult], name: str, middle: float, worst: float
) -> None:
    off = errors(simulated, name)
    assert median(off) <= middle
    assert max(off) <= worst


def test_throughput_bends_near_64_and_is_flat_past_128_while_ttft_grows(
    simulated: list[StepResult],
) -> None:
    rate = {result.concurrency: result.output_tokens_per_s for result in simulated}
    ttft = {result.concurrency: result.ttft_ms for result in simulated}
    assert rate[8] > 6 * rate[1]
    assert rate[64] < 0.5 * 64 * rate[1]
    assert rate[256] < 1.15 * rate[128]
    assert ttft[128] > 1.4 * ttft[64]
    assert ttft[256] > 1.4 * ttft[128]


def test_prefills_hold_decodes_up(simulated: list[StepResult]) -> None:
    at_8 = next(result for result in simulated if result.concurrency == 8)
    assert at_8.itl_p99_ms > 2 * at_8.itl_ms


def test_the_kv_cache_is_as_large_as_vllm_found_it() -> None:
    gib = kv_cache_gib(H200, LLAMA_8B, 0.92, 1)
    tokens = kv_blocks(gib, LLAMA_8B, 1) * BLOCK_SIZE
    assert tokens == pytest.approx(919_824, rel=0.001)


def test_70b_does_not_fit_one_h200_but_two() -> None:
    model = MODELS["llama-3.1-70b"]
    assert kv_blocks(kv_cache_gib(H200, model, 0.92, 1), model, 1) == 0
    assert kv_blocks(kv_cache_gib(H200, model, 0.92, 2), model, 2) > 1000


@pytest.mark.parametrize("name", ["a100-80gb", "h100"])
def test_a_lesser_card_is_slower(name: str) -> None:
    load = StepLoad(tokens=64, context=64 * 600, pairs=64 * 600, emitted=64)
    assert Roofline.of(GPUS[name], LLAMA_8B).seconds(load) > Roofline.of(H200, LLAMA_8B).seconds(
        load
    )
