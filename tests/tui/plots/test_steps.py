"""Steps as pictures: what an operator must see in them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.steps import Step, Steps
from llmtop.tui.plots.step_bins import Column, StepColumns
from llmtop.tui.plots.step_rows import (
    STALL,
    histogram_rows,
    most_tokens,
    share_spans,
    stacked,
    time_rows,
    token_rows,
)
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.values import replace
from tests.plain_rows import plain

NOW = 1_800_000_000.0


def step(seq: int, end: float, seconds: float, prefill: int = 0, **more: Any) -> Step:
    values: dict[str, Any] = {
        "seq": seq, "end": end, "duration_s": seconds, "requests": 8, "prefills": int(prefill > 0),
        "prefill_tokens": prefill, "decode_tokens": 8, "output_tokens": 8, "draft_tokens": 0,
        "accepted_tokens": 0, "running": 8, "waiting": 0, "kv_free_blocks": 100, "preempted": 0,
        "context_tokens": 4000, "schedule_s": 0.0, "update_s": 0.0, "launch_s": None,
        "host_gap_s": 0.0, "idle_s": 0.0, "cached_tokens": 0, "refused": 0,
    }  # fmt: skip
    return Step(**{**values, **more})


def steady(seconds: float = 4.0, each: float = 0.01, **more: Any) -> list[Step]:
    count = int(seconds / each)
    return [step(n, NOW - seconds + (n + 1) * each, each, **more) for n in range(count)]


def columns(steps: list[Step], seconds: float = 0.1, count: int = 40) -> list[Column | None]:
    history, found = StepHistory(), StepColumns(seconds)
    history.add(Steps(tuple(steps), 0, 1, time=NOW))
    found.update(history, NOW)
    return found.window(NOW - 0.001, count)


def test_a_stall_fills_its_whole_time_with_its_whole_height() -> None:
    """Half a second of steps, a step of two seconds, then steps again."""
    before = [step(n, NOW - 3.5 + n * 0.01, 0.01) for n in range(50)]
    stall = step(50, NOW - 1.0, 2.0)
    after = [step(51 + n, NOW - 0.99 + n * 0.01, 0.01) for n in range(99)]
    shown = columns([*before, stall, *after])
    traces, peak = stacked(shown)
    assert peak == pytest.approx(2.0, rel=0.01)
    (stalls,) = [trace for trace in traces if trace.role == STALL]
    lit = [value for value in stalls.columns if value is not None]
    assert 19 <= len(lit) <= 21 and all(value > 1.5 for value in lit)
    text = plain(time_rows(shown, 25, 6, 2.0, UNICODE))
    assert "⣿⣿⣿" in text[1]


def test_a_step_that_does_not_end_is_seen_before_it_does() -> None:
    traces, _ = stacked(columns(steady()), ongoing_s=3.0)
    assert next(trace for trace in traces if trace.role == STALL).columns[-1] == 3.0


def test_parts_of_the_time_are_stacked_and_add_up() -> None:
    steps = []
    for n in range(400):
        prefill = 4000 if n % 4 == 0 else 0
        seconds = 0.1 if prefill else 0.012
        steps.append(step(n, 0.0, seconds, prefill, host_gap_s=0.002))
    at = NOW - sum(one.duration_s for one in steps)
    timed = []
    for one in steps:
        at += one.duration_s
        timed.append(replace(one, end=at))
    history = StepHistory()
    history.add(Steps(tuple(timed), 0, 1, time=NOW))
    window = history.window(NOW, 10.0)
    assert window is not None
    busy = window.parts
    assert busy.busy == pytest.approx(sum(one.duration_s for one in window.steps))
    assert busy.prefill / busy.busy == pytest.approx(0.66, abs=0.03)
    assert busy.host / busy.busy == pytest.approx(0.06, abs=0.02)
    words = "".join(text for group in share_spans(busy) for text, _ in group)
    assert "prefill 6" in words and "idle 0%" in words


def test_idle_time_is_no_step() -> None:
    idle = [step(n, NOW - 4 + n, 0.02, idle_s=0.98) for n in range(1, 5)]
    shown = columns(idle)
    assert sum(column.idle for column in shown if column is not None) > 3.5
    _, peak = stacked(shown)
    assert peak == pytest.approx(0.02)


def test_tokens_stand_against_the_budget_where_steps_come_near_it() -> None:
    shown = columns(steady(prefill=2000))
    assert most_tokens(shown, 2048) == 2048
    assert most_tokens(shown, 200_000) == pytest.approx(2008)
    text = "\n".join(plain(token_rows(shown, 60, 6, 2048, 3000.0, UNICODE)))
    assert "┄" in text


def test_a_histogram_counts_every_step_and_shows_long_ones_beside_short_ones() -> None:
    rng = random.Random(1)
    steps = [step(n, NOW, rng.uniform(0.005, 0.009)) for n in range(300)]
    steps += [step(300 + n, NOW, 0.19) for n in range(12)]
    text = plain(histogram_rows(steps, 46, 20, UNICODE))
    counts = [int(row.split()[-1]) for row in text if row.split()[-1].isdigit()]
    assert sum(counts) == 312 and counts[-1] == 12
    assert all(len(row) == 46 for row in text)
    assert plain(histogram_rows([], 46, 5, ASCII)) == [" no step in this time".ljust(46)]


def test_new_steps_alone_are_taken_in() -> None:
    history, found = StepHistory(), StepColumns(0.1)
    steps = steady()
    history.add(Steps(tuple(steps[:300]), 0, 1, time=NOW))
    found.update(history, NOW)
    history.add(Steps(tuple(steps[300:]), 0, 1, time=NOW))
    found.update(history, NOW)
    covered = sum(column.covered for column in found.columns.values())
    assert covered == pytest.approx(4.0, abs=0.02)


def test_where_no_step_without_prefill_is_known_tokens_divide_the_time() -> None:
    history = StepHistory()
    history.add(Steps(tuple(steady(prefill=24)), 0, 1, time=NOW))
    window = history.window(NOW, 10.0)
    assert window is not None
    assert (window.parts.decode, window.parts.prefill) == pytest.approx((1.0, 3.0))
