"""The demo's own engine and load, in virtual time: it saturates in time, and every knob shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import pytest

from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.state_rules import Level
from tests.virtual_demo import Demo

SATURATED_BY_S = 45
WINDOW_S = 10  # of what is measured before and after a change
SETTLED_S = 15  # until the requests of before have left


@cache
def changed(**limits: int) -> tuple[Demo, Mapping[str, tuple[float, float]]]:
    """The demo with one option changed at 50 s; each measure before and after that."""
    demo = Demo().run(50)
    demo.change(**limits)
    end = 50 + SETTLED_S + WINDOW_S
    demo.run(end)

    def both(measure: Callable[[float, float], float]) -> tuple[float, float]:
        return measure(50 - WINDOW_S, 50), measure(end - WINDOW_S, end)

    return demo, {
        "itl_p50": both(partial(demo.gap_ms, 0.5)),
        "itl_p95": both(partial(demo.gap_ms, 0.95)),
        "tokens": both(demo.tokens_per_s),
        "ttft": both(demo.ttft_ms),
    }


@pytest.fixture(scope="module")
def moments() -> Sequence[Moment]:
    """The demo until it must be saturated, second by second."""
    return Demo().run(SATURATED_BY_S).moments


def test_the_ramp_crosses_the_batch_limit_and_the_kv_limit_within_45_seconds(
    moments: Sequence[Moment],
) -> None:
    assert any(m.cap and m.running == m.cap and m.waiting for m in moments)
    assert max(m.kv_usage or 0.0 for m in moments) >= 0.98
    assert any(m.preemptions_per_min for m in moments)
    early = [m for m in moments if m.time < 10]
    assert max(m.kv_usage or 0.0 for m in early) < 0.5  # it begins with room


def test_the_screen_calls_it_what_it_is_one_after_the_other(moments: Sequence[Moment]) -> None:
    states = LoadStates()
    levels = [states.note(moment).level for moment in moments]
    assert levels[5] is Level.HEADROOM
    assert {Level.NEAR_KNEE, Level.SATURATED} <= set(levels) or Level.OVERLOADED in levels
    assert levels[-1] >= Level.SATURATED
    assert levels == sorted(levels)  # the load only grows


@pytest.mark.more
def test_speculation_accepts_more_than_half_and_is_worth_tokens() -> None:
    demo = Demo().run(20)
    totals = demo.scheduler.totals
    assert totals.accepted_tokens / totals.draft_tokens > 0.5
    _, measures = changed(num_speculative_tokens=0)
    before, after = measures["tokens"]
    assert after < 0.92 * before
    before, after = measures["itl_p50"]  # one token a step: shorter gaps
    assert after < 0.5 * before


@pytest.mark.more
def test_a_smaller_token_budget_shortens_itl_and_lengthens_the_wait() -> None:
    _, measures = changed(max_num_batched_tokens=1024)
    before, after = measures["itl_p95"]
    assert after < 0.5 * before
    before, after = measures["ttft"]
    assert after > 1.2 * before


@pytest.mark.more
def test_a_lower_batch_limit_lengthens_the_queue_and_empties_the_cache() -> None:
    demo, measures = changed(max_num_seqs=32)
    (last,) = demo.moments[-1:]
    assert last.waiting is not None and last.kv_usage is not None
    assert last.waiting > 100 and last.kv_usage < 0.5
    before, after = measures["itl_p50"]
    assert after < 0.7 * before
