"""The rate of an open loop without its drain, concurrency, and what was odd about answers."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmtop.cli.load.load_report import load_lines
from llmtop.loadgen.core.results import (
    NOTHING,
    ClientHealth,
    Fate,
    LatencySummary,
    LoadResult,
    Remark,
    RequestRecord,
    tokens_per_chunk,
)
from llmtop.loadgen.statistics.histogram import Histogram
from llmtop.loadgen.statistics.quantiles import of_counts, of_values
from llmtop.loadgen.statistics.run_counts import RunCounts
from llmtop.loadgen.workload.plan import Loop, Plan, Prompts
from llmtop.tui.panels.per_token import client_itl
from llmtop.values import replace


def request(
    at: float, took: float, tokens: int = 10, chunks: int = 10, **more: Any
) -> RequestRecord:
    return RequestRecord(
        at, at, at, at + took / 2, at + took, 5, tokens, False, Fate.OK,
        ended=at + took, chunks=chunks, **more,
    )  # fmt: skip


def result(is_open: bool, *records: RequestRecord) -> LoadResult:
    counts = RunCounts()
    for record in records:
        counts.add(record)
    last = max(record.last or 0.0 for record in records)
    run = LoadResult(
        len(records), 0, 0, last, 10, 10.0, len(records) / last, NOTHING, NOTHING, NOTHING,
        NOTHING, ClientHealth("valid", "kernel"),
    )  # fmt: skip
    return counts.completed(run, is_open)


@pytest.mark.parametrize("took", [0.5, 4.0, 9.0])
def test_an_engine_that_keeps_up_serves_the_rate_that_was_asked(took: float) -> None:
    records = [request(n / 10, took) for n in range(101)]  # 10 a second for 10 s
    found = result(True, *records)
    assert found.requests_per_s == pytest.approx(10, rel=0.01)
    assert found.rate_window_s == pytest.approx(10 - took)
    closed = result(False, *records)
    assert closed.requests_per_s == pytest.approx(101 / (10 + took))
    assert closed.rate_window_s is None


def test_an_engine_that_falls_behind_serves_what_it_can() -> None:
    # 10 a second are asked, 5 a second are served: the last one ends long after it was due.
    records = [request(n / 10, 1 + n / 10) for n in range(101)]
    assert result(True, *records).requests_per_s == pytest.approx(5, rel=0.03)


def test_where_all_ended_in_the_drain_their_own_pace_is_the_rate() -> None:
    records = [request(n / 10, 30) for n in range(50)]
    found = result(True, *records)
    assert found.requests_per_s == pytest.approx(10, rel=0.01)
    assert result(True, request(0, 1)).requests_per_s == pytest.approx(1)  # one has no pace


def test_concurrency_is_the_time_in_flight_over_the_run() -> None:
    found = result(False, request(0, 2), request(0, 4), request(2, 2))
    assert found.concurrency == pytest.approx(2.0)
    unsent = RequestRecord(0, None, None, None, None, None, 0, True, Fate.CUT, "not sent")
    assert result(False, request(0, 4), unsent).concurrency == pytest.approx(1.0)


def test_remarks_and_chunks_of_several_tokens_are_said() -> None:
    odd = (Remark.CONTENT_LIST, Remark.OUTPUT_ABOVE)
    records = [request(0, 2, 40, 5, remarks=odd), request(0, 2, 40, 5)]
    assert tokens_per_chunk(records) == 8.0
    found = result(False, *records)
    assert found.remarks == {Remark.CONTENT_LIST: 1, Remark.OUTPUT_ABOVE: 1}
    lines = load_lines(Plan(Loop.CLOSED, "hold 1"), replace(found, tokens_per_chunk=8.0), False)
    assert "  1 request: content comes as a list of parts" in lines
    (gap,) = (n for n, line in enumerate(lines) if line.startswith("  ITL"))
    assert lines[gap + 1].strip().startswith("between chunks of 8.0 tokens each")
    plain = load_lines(Plan(Loop.CLOSED, "hold 1"), replace(found, tokens_per_chunk=1.02), False)
    assert not [line for line in plain if "between chunks" in line]


def test_a_whole_run_has_mean_ends_and_deviation() -> None:
    exact = of_values([1.0, 2.0, 3.0, 6.0])
    assert (exact.mean, exact.minimum, exact.maximum) == (3.0, 1.0, 6.0)
    assert exact.std == pytest.approx(3.5**0.5)
    counts = Histogram()
    for value in (1.0, 2.0, 3.0, 6.0):
        counts.record(int(value * 1e9))
    found = of_counts(counts.counts)  # type: ignore[arg-type]
    assert found.mean == pytest.approx(3.0, rel=0.01) and found.std == pytest.approx(1.87, rel=0.02)
    assert found.minimum == pytest.approx(1.0, rel=0.01) and found.maximum == pytest.approx(
        6, rel=0.01
    )
    assert of_counts(counts.counts, 10.0).mean is None  # type: ignore[arg-type]
    assert of_values([]).mean is None


def test_a_request_of_a_later_turn_is_no_new_prompt() -> None:
    found = result(False, request(0, 1), request(1, 1, turn=2), request(2, 1))
    assert found.begun == 2
    assert Prompts().turns == 1


@pytest.mark.parametrize(("several", "said"), [(8.0, True), (1.05, False), (None, False)])
def test_the_screen_names_a_gap_between_chunks(several: float | None, said: bool) -> None:
    itl = LatencySummary(0.09, 0.1, 0.11, 500, 10.0)
    load = SimpleNamespace(itl=itl, tokens_per_chunk=several)
    view: Any = SimpleNamespace(client=load)
    words = " ".join(text for _, spans in client_itl(view) for text, *_ in spans)
    assert ("chunks of  8.0 tok" in words) is said


def test_no_more_requests_are_in_flight_than_there_are_streams() -> None:
    # Two streams. One request of the second ends by a time-out, long after the last token of all.
    hangs = replace(request(1.0, 0.5), fate=Fate.FAILED, ended=8.0)
    records = [request(0.0, 1.0), request(0.0, 1.0), request(1.0, 0.5), hangs]
    found = result(False, *records)
    assert found.concurrency == pytest.approx((1 + 1 + 0.5 + 7) / 8)
