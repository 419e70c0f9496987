"""A run of load as plain lines."""

from typing import Any

from llmtop.engines.samples import Quantile, Quantiles
from llmtop.loadgen.plan import Loop, Plan
from llmtop.loadgen.results import ClientHealth, LatencySummary, LoadResult
from llmtop.tui.report import load_lines, quantile_line
from llmtop.values import replace

SECONDS = LatencySummary(0.001, 0.004, 0.01, 461)
LAG = "client-bound, because reads lag 10.0 ms (p99) behind the kernel"
CPU = "client-bound, because a worker used 98% of its core"


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
    late = ClientHealth(LAG, "kernel", lag=SECONDS, causes=("reads lag 10ms",))
    assert client_line(late) == f"{LAG} (kernel clock)"
    busy = ClientHealth(CPU, "kernel", lag=SECONDS, causes=("worker CPU 98%",))
    assert client_line(busy) == f"{CPU} (kernel clock, lag p99 10ms n=461)"


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
    at = lines.index("from sending, not from when it was due:")
    assert lines[at + 1].startswith("TTFT  p50 500us")
    closed = lines_of(Loop.CLOSED, late=3)
    assert not [line for line in closed if "late" in line or "from sending" in line]


def test_conversations_that_the_end_left_unfinished_are_said() -> None:
    lines = lines_of(Loop.OPEN, unfinished=12)
    assert [line for line in lines if line.startswith("12 conversations were not finished")]
    assert not [line for line in lines_of(Loop.OPEN) if "conversations" in line]


def test_what_a_prefix_cache_saved_and_how_tokens_were_counted() -> None:
    lines = lines_of(Loop.CLOSED, prompt_tokens=1000, cached_tokens=620, counted=4)
    assert "prompt 1,000 tokens  62% of them cached" in lines
    assert "4 requests without usage: their tokens are chunks" in lines
    assert not [line for line in lines_of(Loop.CLOSED) if "cached" in line or "chunks" in line]


def test_a_quantile_says_the_window_that_it_is_of() -> None:
    found = Quantiles(Quantile(0.5), Quantile(1.0, ">"), None, None, 3, 0.52)
    assert quantile_line("TTFT", found).endswith("n=3  window 0.5s")
    assert quantile_line("TTFT", replace(found, window_s=3.004)).endswith("window 3s")
