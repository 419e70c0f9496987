"""A run of load as plain lines."""

from typing import Any

from llmtop.cli.engines.once import quantiles
from llmtop.cli.load.load_report import client_lines, load_lines
from llmtop.engines.core.samples import Quantile, Quantiles
from llmtop.loadgen.core.measures import Extent, Measure, Sources
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadResult, Remark
from llmtop.loadgen.statistics.client_health import examined
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.values import replace
from llmtop.wording.report import quantile_line

SECONDS = LatencySummary(0.001, 0.004, 0.01, 461)
GONE = "client-bound, because 1 of its workers ended"


def client_line(health: ClientHealth) -> str:
    result = LoadResult(
        1, 0, 0, 1.0, 9, 9.0, 1.0, SECONDS, SECONDS, SECONDS, SECONDS, health=health
    )
    (line,) = (x for x in load_lines(Plan(Loop.CLOSED, "hold 1"), result, False) if "clock" in x)
    return line.strip()


def test_whether_the_client_kept_up_is_said_once() -> None:
    assert client_line(ClientHealth("valid", "kernel", lag=SECONDS)) == (
        "client valid (kernel clock, lag p99 10ms n=461)"
    )
    late = ClientHealth("valid", "kernel", lag=SECONDS, strain=("reads lag 10ms",))
    assert client_line(late) == "client valid (kernel clock, reads lag 10ms)"
    gone = ClientHealth(GONE, "kernel", lag=SECONDS, causes=("1 of its workers ended",))
    assert client_line(gone) == f"{GONE} (kernel clock, lag p99 10ms n=461)"


def test_each_figure_that_the_client_can_have_moved_has_a_line_with_the_remedy_below() -> None:
    late = Extent(SECONDS, replace(SECONDS, p99=0.004), SECONDS)
    health = ClientHealth("", "kernel", strain=("core wait 40%",), remedy="fewer streams")
    sources = Sources(closed=False, extents={Measure.TTFT: late}, late_s=0.006, tokens_per_s=9.0)
    lines = client_lines(examined(health, sources))
    assert lines == [
        "  client partly valid (kernel clock, core wait 40%):",
        "    valid: TTFT p50, TTFT p95, tok/s",
        "    not valid: TTFT p99 can be 6.1 ms off: requests left up to 6.0 ms late",
        "    try fewer streams",
    ]
    away = examined(health, Sources(tokens_per_s=9.0, turnaround=0.2))
    assert client_lines(away) == [
        "  client-bound, this client limited the load (kernel clock, core wait 40%):",
        "    not valid: tok/s can be 25% off: streams waited 20% of their time for this client's"
        " next send",
        "    try fewer streams",
    ]


def lines_of(loop: Loop, **more: Any) -> list[str]:
    health = ClientHealth("valid", "kernel")
    result = LoadResult(
        8, 2, 0, 1.0, 9, 9.0, 1.0, SECONDS, SECONDS, SECONDS, SECONDS, health=health, **more
    )
    return [line.strip() for line in load_lines(Plan(loop, "hold 1"), result, False)]


def test_late_and_unsent_requests_stand_in_a_row_of_their_own_in_the_open_loop() -> None:
    sent = replace(SECONDS, p50=0.0005)
    lines = lines_of(Loop.OPEN, late=3, not_sent=1, timed_out=1, service_ttft=sent)
    assert "requests 8 ok  2 failed  0 cut" in lines
    assert "of these 1 timed out  3 sent late  1 not sent" in lines
    at = lines.index("measured from the time of sending, not from the scheduled time:")
    assert lines[at + 1].startswith("TTFT  p50 500us")
    closed = lines_of(Loop.CLOSED, late=3)
    assert not [line for line in closed if "late" in line or "from sending" in line]


def test_conversations_that_the_end_left_unfinished_are_said() -> None:
    lines = lines_of(Loop.OPEN, unfinished=12)
    assert [line for line in lines if line.startswith("12 conversations did not finish")]
    assert not [line for line in lines_of(Loop.OPEN) if "conversations" in line]


def test_what_a_prefix_cache_saved_and_how_tokens_were_counted() -> None:
    lines = lines_of(Loop.CLOSED, prompt_tokens=1000, cached_tokens=620, counted=4)
    assert "prompt 1,000 tokens  62% of them cached" in lines
    assert "4 requests without usage: their chunks are counted as tokens" in lines
    assert not [line for line in lines_of(Loop.CLOSED) if "cached" in line or "chunks" in line]


def test_usage_that_came_and_was_not_believed_is_not_called_missing() -> None:
    remarks = {Remark.NOT_BELIEVED: 4, Remark.OUTPUT_ABOVE: 4}
    lines = lines_of(Loop.CLOSED, counted=4, remarks=remarks)
    assert "4 requests: usage not believed: chunks counted" in lines
    assert "4 requests: the server reports more output tokens than were requested" in lines
    assert not [line for line in lines if "without usage" in line]
    assert "1 request without usage: their chunks are counted as tokens" in lines_of(
        Loop.CLOSED, counted=5, remarks=remarks
    )


def test_a_quantile_says_the_window_that_it_is_of() -> None:
    found = Quantiles(Quantile(0.5), Quantile(1.0, ">"), None, None, 3, 0.52)
    assert quantile_line("TTFT", found).endswith("n=3  window 0.5s")
    assert quantile_line("TTFT", replace(found, window_s=3.004)).endswith("window 3s")


def test_a_range_is_shown_as_one_and_the_mean_beside_it() -> None:
    found = Quantiles(Quantile(0.04, "-", 0.06), Quantile(5.0, "-", 10.0), None, 1.234, 57, 10.0)
    assert quantile_line("TTFT", found) == (
        "  TTFT   p50 40-60ms  p95 5-10s  p99 --  mean 1.23s  n=57  window 10s"
    )


def test_json_has_the_bounds_of_what_is_not_known() -> None:
    found = Quantiles(Quantile(0.3, "<"), Quantile(5.0, "-", 10.0), Quantile(80.0, ">"), 4, 200, 9)
    assert quantiles(found, 10.0) == {
        "p50": None, "p50_at_least": 0.0, "p50_at_most": 0.3, "p50_below": 0.3,
        "p95": None, "p95_at_least": 5.0, "p95_at_most": 10.0,
        "p99": None, "p99_at_least": 80.0, "p99_above": 80.0,
        "mean": 4, "n": 200, "window_s": 9, "exact_within": None,
    }  # fmt: skip
    known = quantiles(Quantiles(Quantile(0.09), None, None, 0.08, 7, 3.0), 3.0)
    assert known == {
        "p50": 0.09, "p95": None, "p99": None, "mean": 0.08, "n": 7, "window_s": 3.0,
        "exact_within": None,
    }  # fmt: skip
