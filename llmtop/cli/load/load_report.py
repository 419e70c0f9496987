"""The result of a load as text."""

from __future__ import annotations

from llmtop.loadgen.core.measures import Measure
from llmtop.loadgen.core.results import SEVERAL, ClientHealth, LatencySummary, LoadResult, Remark
from llmtop.loadgen.statistics.client_health import CLIENT_BOUND, NOT_VALID, PARTLY_VALID, VALID
from llmtop.loadgen.statistics.verdict import affected, valid_measures
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.operations.repeats import Repeats, repeat_words
from llmtop.printable import clean
from llmtop.wording.format import count, duration, latency, percent, rate

_WORDS = {
    PARTLY_VALID: "client partly valid",
    NOT_VALID: "client not valid",
    CLIENT_BOUND: "client-bound, this client limited the load",
}
# Texts for the terminal. JSON and files contain the value of the remark.
_REMARKS = {
    Remark.USAGE_FLOAT: "the server reports a usage that is not a whole number",
    Remark.USAGE_IMPOSSIBLE: "the server reports an impossible usage, so chunks are counted",
    Remark.OUTPUT_ABOVE: "the server reports more output tokens than were requested",
    Remark.OUTPUT_BELOW: "the server reports fewer output tokens than were requested",
    Remark.PROMPT_DIFFERS: "the server reports a different number of prompt tokens than were sent",
}
_USAGE_IGNORED = (Remark.NOT_BELIEVED, Remark.USAGE_IMPOSSIBLE)


def summary_line(word: str, found: LatencySummary) -> str:
    """The percentiles of one latency. word: its name."""
    parts = [f"{name} {latency(getattr(found, name))}" for name in ("p50", "p95", "p99")]
    return f"  {word:<5} {'  '.join(parts)}  n={found.n:,}"


def load_lines(
    plan: Plan, result: LoadResult, simulated: bool, repeats: Repeats | None = None
) -> list[str]:
    """The result of a load as lines."""
    lines = [
        f"{plan.loop.value} loop, {plan.shape}, {duration(result.duration_s)}"
        + (", simulated engine" if simulated else ""),
        f"  requests {result.ok:,} ok  {_refused(result)}{result.failed:,} failed  "
        f"{result.cut:,} cut",
        *_missed(plan, result),
        _throughput(result),
        summary_line("TTFT", result.ttft),
        summary_line("TPOT", result.tpot),
        *_gaps(result),
        summary_line("e2e", result.e2e),
        *_from_sending(plan, result),
        *_counts(result, repeats),
        *_limits(plan, result),
        *client_lines(result.health),
    ]
    lines += [f"  {number:,} x {clean(reason)}" for reason, number in result.errors.items()]
    return lines


def _refused(result: LoadResult) -> str:
    """The number of requests that the engine refused because its queue was full; "" for none."""
    return f"{result.refused:,} refused (queue full)  " if result.refused else ""


def client_lines(health: ClientHealth) -> list[str]:
    """The client's verdict, and a line for each measure that the client may have distorted."""
    invalid = affected(health.measures, Measure)
    lag = health.lag
    has_lag = any(cause.startswith("reads lag") for cause in health.strain)
    late = f", lag p99 {latency(lag.p99)} n={lag.n:,}" if lag and lag.n and not has_lag else ""
    strain = "".join(f", {one}" for one in health.strain)
    clock = f"({health.clock} clock{late}{strain})"
    if health.verdict == VALID:
        return [f"  client valid {clock}"]
    if not invalid or any(one.bound is None for one in invalid):
        return [f"  {health.verdict} {clock}"]
    lines = [f"  {_WORDS.get(health.word, health.word)} {clock}:"]
    if valid := valid_measures(health.measures):
        lines.append(f"    valid: {', '.join(valid)}")
    lines += [f"    not valid: {one.words}" for one in invalid]
    return [*lines, f"    try {health.remedy}"] if health.remedy else lines


def _missed(plan: Plan, result: LoadResult) -> list[str]:
    """Requests that timed out, were sent late or were not sent.

    ``failed`` includes those that timed out and those that were not sent.
    """
    parts = [f"{result.timed_out:,} timed out"] if result.timed_out else []
    if plan.loop is Loop.OPEN:
        parts += [f"{result.late:,} sent late", f"{result.not_sent:,} not sent"]
    return [f"  of these {'  '.join(parts)}"] if parts else []


def _throughput(result: LoadResult) -> str:
    words = f"  output {count(result.output_tokens_per_s)} tok/s"
    words += f"  {rate(result.requests_per_s)} requests/s"
    if result.rate_window_s is not None:
        words += " before the drain"
    if result.concurrency is not None:
        words += f"  {rate(result.concurrency)} in flight"
    return words


def _gaps(result: LoadResult) -> list[str]:
    """The gaps between chunks, and the tokens in a chunk when it is more than one."""
    lines = [summary_line("ITL", result.itl)]
    several = result.tokens_per_chunk
    if several is not None and several > SEVERAL:
        lines.append(f"        between chunks of {several:.1f} tokens each; of a token: see TPOT")
    return lines


def _from_sending(plan: Plan, result: LoadResult) -> list[str]:
    """In the open loop: latencies from the time of sending, without the delay of sending."""
    if plan.loop is Loop.CLOSED:
        return []
    return [
        "  measured from the time of sending, not from the scheduled time:",
        summary_line("TTFT", result.service_ttft),
        summary_line("e2e", result.service_e2e),
    ]


def _counts(result: LoadResult, repeats: Repeats | None) -> list[str]:
    lines = []
    if result.cached_tokens is not None and result.prompt_tokens:
        share = result.cached_tokens / result.prompt_tokens
        lines.append(f"  prompt {result.prompt_tokens:,} tokens  {percent(share)} of them cached")
    lines += [f"  {words}" for words in (repeat_words(repeats) if repeats is not None else ())]
    without = result.counted - sum(result.remarks.get(one, 0) for one in _USAGE_IGNORED)
    if without > 0:
        lines.append(f"  {_requests(without)} without usage: their chunks are counted as tokens")
    for remark, n in result.remarks.items():
        lines.append(f"  {_requests(n)}: {_REMARKS.get(remark, remark.value)}")
    if result.unfinished:
        lines.append(
            f"  {result.unfinished:,} conversations did not finish: before their next turn,"
            " the load ended, was lowered, or had no memory left for them"
        )
    return lines


def _limits(plan: Plan, result: LoadResult) -> list[str]:
    """What limited the load: the engine, or the limit of open files on this machine."""
    lines = []
    if result.oversaturated:
        since = result.oversaturated_s
        when = "" if since is None else f" from {duration(since)} on"
        lines.append(
            f"  over-saturated{when}: requests arrived faster than they were served; the queue"
            " and TTFT grew, so latencies depend on the length of the run"
        )
    if result.held_to is not None:
        what = "streams" if plan.loop is Loop.CLOSED else "requests in flight"
        lines.append(
            f"  limited to {result.held_to:,} {what} by the limit of open files"
            " (ulimit -n): raise it, or ask for fewer"
        )
    return lines


def _requests(number: int) -> str:
    return f"{number:,} request{'' if number == 1 else 's'}"
