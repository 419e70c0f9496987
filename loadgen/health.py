"""Whether the generator itself can be trusted. The thresholds and their reasons: docs/load.md."""

from __future__ import annotations

from dataclasses import replace

from llmtop.loadgen.little import Balance
from llmtop.loadgen.plan import Loop
from llmtop.loadgen.results import ClientHealth, LatencySummary

VALID = "valid"
MAX_CPU = 0.70  # of one core; above, bursts queue up inside the worker
MAX_LAG_OF_ITL = 0.5  # a read that is later than this may find two tokens under one stamp
MAX_LATENESS_OF_TTFT = 0.05
MIN_LATENESS_S = 0.001  # a send this late is of no account whatever the TTFT
MAX_RUN_DELAY = {"kernel": 0.25, "user space": 0.05}  # stamps hold when the process has to wait
MAX_IMBALANCE = 0.10  # of the time in flight; 1 % is what a sound client shows, of 5 ms requests
MAX_UNSTAMPED = 0.01  # share of reads without a stamp up to which the clock counts as the kernel's


def with_cause(health: ClientHealth, words: str, brief: str) -> ClientHealth:
    """The same with one more cause, as a sentence's part and in a few words."""
    joined = (
        f"client-bound, because {words}"
        if health.verdict == VALID
        else f"{health.verdict}; {words}"
    )
    return replace(health, verdict=joined, causes=(*health.causes, brief))


def balanced(health: ClientHealth, balance: Balance | None) -> ClientHealth:
    """A verdict that also knows whether the client's own account of a level balances."""
    if balance is None or not balance.telling or abs(balance.ratio - 1) <= MAX_IMBALANCE:
        return health
    words = (
        f"its records tell {balance.ratio:.0%} of the time that requests were in flight "
        "(Little's law)"
    )
    return with_cause(health, words, f"Little's law {balance.ratio:.2f}")


def judge(
    *,
    clock: str,
    loop: Loop,
    itl: LatencySummary,
    ttft: LatencySummary,
    lag: LatencySummary | None,
    lateness: LatencySummary | None,
    cpu: float | None,
    run_delay: float | None,
    short: int = 0,
    lost: int = 0,
    gone: int = 0,
) -> ClientHealth:
    """All that is known of the generator over a window, and the verdict on it.

    short: streams asked for beyond the limit of open files. lost: records dropped. gone:
    workers that ended before their work did.
    """
    causes: list[tuple[str, str]] = []  # as a sentence's part, and in a few words
    if cpu is not None and cpu > MAX_CPU:
        causes.append((f"a worker used {cpu:.0%} of its core", f"worker CPU {cpu:.0%}"))
    if run_delay is not None and run_delay > MAX_RUN_DELAY[clock]:
        words = f"a worker waited for a core {run_delay:.0%} of the time"
        causes.append((words, f"core wait {run_delay:.0%}"))
    if lag and lag.p99 and itl.p50 and lag.p99 > MAX_LAG_OF_ITL * itl.p50:
        words = f"reads lag {lag.p99 * 1000:.1f} ms (p99) behind the kernel"
        causes.append((words, f"reads lag {lag.p99 * 1000:.0f}ms"))
    if loop is Loop.OPEN and lateness and lateness.p99 and ttft.p50:
        limit = max(MIN_LATENESS_S, MAX_LATENESS_OF_TTFT * ttft.p50)
        if lateness.p99 > limit:
            words = f"sends left {lateness.p99 * 1000:.1f} ms late (p99)"
            causes.append((words, f"sends {lateness.p99 * 1000:.0f}ms late"))
    if short:
        causes.append((f"{short} streams more than may be open here", f"{short} streams short"))
    if gone:
        causes.append((f"{gone} of its workers ended", f"{gone} workers ended"))
    if lost:
        causes.append((f"{lost} records were dropped", f"{lost} records lost"))
    return ClientHealth(
        verdict=f"client-bound, because {'; '.join(c for c, _ in causes)}" if causes else VALID,
        clock=clock,
        lag=lag,
        lateness=lateness if loop is Loop.OPEN else None,
        cpu=cpu,
        run_delay=run_delay,
        causes=tuple(brief for _, brief in causes),
    )
