"""TensorRT-LLM's iterations as steps, in their documented form."""

from __future__ import annotations

from typing import Any

import pytest

from llmtop.engines.tensorrt_llm.iteration_steps import IterationSteps


def iteration(number: int, second: float, **changes: Any) -> dict[str, Any]:
    return {
        "timestamp": f"11-22-2026 08:00:{second:09.6f}",
        "iter": number,
        "iterLatencyMS": 7.5,
        "numActiveRequests": 5,
        "numCompletedRequests": 1,
        "numQueuedRequests": 2,
        "kvCacheStats": {"freeNumBlocks": 900},
        "inflightBatchingStats": {
            "numContextRequests": 0,
            "numGenRequests": 4,
            "numPausedRequests": 1,
            "numCtxTokens": 0,
        },
        "specDecodingStats": {"numDraftTokens": 12, "numAcceptedTokens": 6},
        **changes,
    }


def test_an_iteration_is_a_step() -> None:
    read = IterationSteps()
    read.add([iteration(7, 10.0), iteration(8, 10.5)], now=1000.0)
    first, second = read.steps(1000.0).steps
    assert (first.seq, second.end) == (7, 1000.0)
    assert first.end == pytest.approx(999.5)
    assert (first.duration_s, first.requests, first.prefills) == (0.0075, 4, 0)
    assert (first.decode_tokens, first.output_tokens) == (16, 10)
    assert (first.draft_tokens, first.accepted_tokens) == (12, 6)
    assert (first.running, first.waiting, first.kv_free_blocks, first.preempted) == (4, 2, 900, 1)
    assert first.launch_s is first.host_gap_s is first.context_tokens is None


def test_what_a_prefill_does_not_report_is_unknown() -> None:
    batch = {"numContextRequests": 1, "numGenRequests": 3, "numCtxTokens": 0}
    lengths = {"numCtxKvTokens": 100, "numGenKvTokens": 50}
    read = IterationSteps()
    read.add([iteration(1, 1.0, inflightBatchingStats=batch, **lengths)], now=5.0)
    found = read.steps(5.0)
    (step,) = found.steps
    assert (step.requests, step.prefills, step.output_tokens) == (4, 1, None)
    assert step.context_tokens == 150
    assert "0 prompt tokens" in found.missing["prefill_tokens"]
    assert "launch_s" in found.missing


def test_iterations_that_are_no_steps_are_left_out() -> None:
    read = IterationSteps()
    nothing = {"numContextRequests": 0, "numGenRequests": 0}
    spoilt: list[Any] = [
        iteration(1, 1.0, inflightBatchingStats=nothing),
        iteration(2, 1.0, iterLatencyMS=None),
        iteration(3, 1.0, iterLatencyMS=float("inf")),
        iteration(4, 1.0, iter="x"),
        iteration(5, 1.0, inflightBatchingStats=[]),
        {},
    ]
    read.add(spoilt, now=5.0)
    assert read.steps(5.0).steps == ()


@pytest.mark.parametrize("stamp", [None, 5, "yesterday", "99-99-2026 08:00:00.0", "x" * 10_000])
def test_a_stamp_that_is_none_costs_no_step(stamp: object) -> None:
    read = IterationSteps()
    read.add([iteration(1, 1.0, timestamp=stamp), iteration(2, 2.0)], now=5.0)
    assert [step.end for step in read.steps(5.0).steps] == [5.0, 5.0]
