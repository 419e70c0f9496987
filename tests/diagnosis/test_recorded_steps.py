"""The diagnosis of steps that a real vLLM 0.26 made on an H200: 256, 4 and 64 streams by turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.forecast.recordings import read
from llmtop.diagnosis.causes import Cause, Explanation
from llmtop.diagnosis.explanation import explain
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.diagnosis.step_moments import moments_of
from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.steps import Step

KV_TOKENS = 919_824
FILE = Path(__file__).resolve().parents[1] / "data" / "vllm" / "steps_h200_0.26.csv.gz"


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return read(FILE, KV_TOKENS)


def history_at(steps: list[Step], now: float) -> StepHistory:
    history = StepHistory()
    history.extend(step for step in steps if step.end <= now)
    return history


def explained(steps: list[Step], now: float) -> Explanation:
    history = history_at(steps, now)
    fitted = history.fitted(now)
    moments = moments_of(list(history.steps), now, cap=1024, fitted=fitted)[-40:]
    states, finding = LoadStates(), LoadState(Level.HEADROOM, ("no load",), idle=True)
    for moment in moments:
        finding = states.note(moment)
    return explain(
        Observation(
            now, finding, moments, history.window(now), fitted, history.slowdown(now),
            kv_usage=0.15, kv_blocks=KV_TOKENS / 16,
        )
    )  # fmt: skip


@pytest.mark.parametrize("after_s", [3, 8, 18, 28, 38, 48])
def test_three_seconds_of_steps_tell_what_load_costs_and_later_ones_agree(
    steps: list[Step], after_s: float
) -> None:
    now = steps[0].end + after_s
    fitted = history_at(steps, now).fitted(now)
    assert fitted is not None and fitted.error <= 0.05
    # Medians of pure decode steps: 6.8 ms at 64 requests, 8.8 at 128, 13.8 at 254.
    assert fitted.seconds(64) == pytest.approx(0.0068, rel=0.1)
    assert fitted.seconds(128) == pytest.approx(0.0088, rel=0.1)
    assert fitted.seconds(254) == pytest.approx(0.0138, rel=0.1)
    assert fitted.seconds(64, 8128) == pytest.approx(0.184, rel=0.1)


@pytest.mark.parametrize("after_s", [8, 23, 43, 48])
def test_near_the_knee_prefill_and_decode_take_the_time_and_no_limit_is_blamed(
    steps: list[Step], after_s: float
) -> None:
    found = explained(steps, steps[0].end + after_s)
    assert found.level is Level.NEAR_KNEE
    assert [one.cause for one in found.causes] == [Cause.PREFILL, Cause.DECODE]
