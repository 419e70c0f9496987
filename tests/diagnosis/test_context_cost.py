"""The cost of a token of context, from steps that differ in nothing else."""

from __future__ import annotations

import random

import pytest

from llmtop.diagnosis.steps.context_cost import context_cost
from llmtop.engines.core.steps import Step

COST_S = 3e-8  # a token of context, of an 8B model on one H200
REST_S = 0.006


def step(seq: int, seconds: float, requests: int, context: int) -> Step:
    """A step that only decodes."""
    return Step(
        seq=seq, end=float(seq), duration_s=seconds, requests=requests, prefills=0,
        prefill_tokens=0, decode_tokens=requests, output_tokens=requests, draft_tokens=0,
        accepted_tokens=0, running=requests, waiting=0, kv_free_blocks=1000, preempted=0,
        context_tokens=context, schedule_s=0.0002, update_s=0.0002, launch_s=0.001,
        host_gap_s=0.0, idle_s=0.0, cached_tokens=0, refused=0,
    )  # fmt: skip


def steady(
    count: int, context: int, *, requests: int = 96, noise: float = 0.01, drift: float = 0.0
) -> list[Step]:
    """Steps that only decode. Each request gets a token in each. drift: of the rest, a step."""
    rng = random.Random(5)
    found = []
    for number in range(count):
        tokens = requests * (context + number)
        seconds = (REST_S + drift * number + COST_S * tokens) * rng.lognormvariate(0.0, noise)
        found.append(step(number + 1, seconds, requests, tokens))
    return found


def test_growing_contexts_tell_their_cost() -> None:
    assert context_cost(steady(400, 5000)) == pytest.approx(COST_S, rel=0.15)


def test_batches_of_different_sizes_are_not_mistaken_for_contexts() -> None:
    mixed = steady(200, 5000, requests=96) + steady(200, 5000, requests=16)
    assert context_cost(mixed) == pytest.approx(COST_S, rel=0.15)


@pytest.mark.parametrize(
    "steps",
    [
        steady(40, 5000),  # too few
        steady(400, 50),  # too short to matter
        steady(400, 5000, noise=0.5),  # too noisy
        steady(400, 5000, drift=1e-4),  # something else grew: more than contexts can explain
    ],
    ids=["few", "short", "noisy", "drift"],
)
def test_without_certainty_there_is_no_figure(steps: list[Step]) -> None:
    assert context_cost(steps) is None


def test_a_gpu_that_is_slower_from_one_moment_on_is_not_taken_for_contexts() -> None:
    usual = steady(300, 50, noise=0.01)
    slow = [
        step(300 + one.seq, 1.3 * one.duration_s, 96, (one.context_tokens or 0) + 300 * 96)
        for one in usual
    ]
    assert context_cost(usual + slow) is None
