"""A run of load as plain lines."""

from llmtop.loadgen.plan import Loop, Plan
from llmtop.loadgen.results import ClientHealth, LatencySummary, LoadResult
from llmtop.tui.report import load_lines

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
