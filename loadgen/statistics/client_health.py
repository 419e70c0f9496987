"""Whether each measure of the load can be trusted. Method: docs/explanation/load-clock.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from llmtop.loadgen.core.client_capacity import Calibration
from llmtop.loadgen.core.measures import Measure, Sources, Verdict
from llmtop.loadgen.core.results import ClientHealth, LatencySummary
from llmtop.loadgen.statistics.littles_law import Balance
from llmtop.loadgen.statistics.verdict import affected, judge
from llmtop.values import replace

VALID = "valid"
PARTLY_VALID = "partly valid"
NOT_VALID = "not valid"
CLIENT_BOUND = "client-bound"
HIGH_CPU = 0.70  # of one core; above, bursts queue up inside the worker
MOST_OF_CALIBRATED = 0.70  # as HIGH_CPU
HIGH_RUN_DELAY = 0.10  # of the time in which a worker had work but no core
MAX_IMBALANCE = 0.10  # of the time in flight; 1 % is what a sound client shows, of 5 ms requests
MAX_UNSTAMPED = 0.01  # share of reads without a stamp up to which the clock counts as the kernel's
LOAD = tuple(one for one in Measure if one is not Measure.ATTAINMENT)


def strain(cpu: float | None, run_delay: float | None, lag: LatencySummary | None) -> list[str]:
    """What the client was short of, in a few words each. None of it makes a figure wrong by
    itself: by how much it did, the bounds say."""
    found = []
    if cpu is not None and cpu > HIGH_CPU:
        found.append(f"worker CPU {cpu:.0%}")
    if run_delay is not None and run_delay > HIGH_RUN_DELAY:
        found.append(f"core wait {run_delay:.0%}")
    if lag is not None and lag.p99 and lag.p99 > 0.01:
        found.append(f"reads lag {lag.p99 * 1000:.0f}ms")
    return found


def remedy(
    cpu: float | None, run_delay: float | None, workers: int, cores: int | None = None
) -> str:
    """What helps when the client cannot keep up, by what it is short of."""
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    if run_delay is not None and run_delay > HIGH_RUN_DELAY:
        return "fewer streams, or another machine, because other programs use its cores"
    if cpu is not None and cpu > HIGH_CPU and workers < cores:
        return f"--workers {min(cores, 2 * workers)}, fewer streams, or another machine"
    return "fewer streams, or another machine"


def examined(
    health: ClientHealth,
    sources: Sources,
    asked: Iterable[Measure] = LOAD,
    limits: Mapping[str, float] | None = None,
) -> ClientHealth:
    """The same with a verdict on every measure, and one word on those asked for.

    limits: under test, seconds by name of the measure.
    """
    wanted = set(asked)
    verdicts = judge(sources, limits, remedy=health.remedy)
    spoilt = affected(verdicts, wanted)
    words = "; ".join(dict.fromkeys(one.words for one in spoilt))
    causes: tuple[str, ...] = tuple(one.brief for one in spoilt)
    if sources.void:
        words, causes = sources.void, (sources.void,)
    return replace(
        health,
        verdict=f"{_word(verdicts, wanted, sources)}, because {words}" if words else VALID,
        causes=causes,
        measures=verdicts,
        sources=sources,
    )


def _word(verdicts: tuple[Verdict, ...], asked: set[Measure], sources: Sources) -> str:
    """The word for a client of which a measure that is asked for is not valid.

    The client was the limit only where the engine got another load than was asked for, or where
    throughput is the client's. A latency that it blurs leaves the other figures as they are.
    """
    mine = [one for one in verdicts if one.measure in asked]
    if sources.void or any(one.measure is Measure.THROUGHPUT and not one.valid for one in mine):
        return CLIENT_BOUND
    return PARTLY_VALID if any(one.valid for one in mine) else NOT_VALID


def strained(health: ClientHealth, brief: str) -> ClientHealth:
    """The same with one more thing that the client is short of."""
    return replace(health, strain=(*health.strain, brief))


def against_capacity(
    health: ClientHealth, capacity: Calibration, chunks_per_s: float | None
) -> ClientHealth:
    """The same with a strain when the client is above 70 % of what it can sustain.

    Whether a measure suffered from it, its bound says.
    """
    limit = MOST_OF_CALIBRATED * capacity.chunks_per_s
    if chunks_per_s is None or chunks_per_s <= limit:
        return health
    return strained(health, f"{chunks_per_s / capacity.chunks_per_s:.0%} of what it carries")


def balanced(health: ClientHealth, balance: Balance | None) -> str:
    """Why the client's own account of a level voids it; "" when it does not.

    A worker that waits for a core shows what it did that much later, so that share of the time the
    counter may be behind the records without one of them missing.
    """
    if balance is None or not balance.conclusive:
        return ""
    if abs(balance.ratio - 1) <= MAX_IMBALANCE + (health.run_delay or 0.0):
        return ""
    return (
        f"its records cover {balance.ratio:.0%} of the time that requests were in flight "
        "(Little's law)"
    )


def void(*, short: int = 0, lost: int = 0, gone: int = 0, silent: str = "") -> str:
    """Why the load was not the one that was asked for; "" when it was.

    short: streams asked for beyond the limit of open files. lost: records dropped. gone: workers
    that ended before their work did. silent: what is known of workers that say nothing.
    """
    causes = []
    if short:
        causes.append(f"{short} streams above this machine's limit of open files")
    if gone:
        causes.append(f"{gone} of its workers ended")
    if silent:
        causes.append(silent)
    if lost:
        causes.append(f"{lost} records were dropped")
    return "; ".join(causes)
