"""Texts for the event list, the marks on the charts and the output of commands. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from llmtop import LlmtopError
from llmtop.analysis.effects import Effect
from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.core.records import EngineStatus, Left, State
from llmtop.engines.host.redaction import redact
from llmtop.engines.host.safe_text import clean
from llmtop.loadgen.workload.lengths import Lengths, LogNormal
from llmtop.wording.format import count, duration, latency, quantile, rate, short, span
from llmtop.wording.outcomes import outcome_words

SHORT = {
    "max_num_seqs": "seqs",
    "max_num_batched_tokens": "tokens",
    "num_speculative_tokens": "spec",
}

STATES = {
    State.STARTING: "is starting",
    State.READY: "is ready",
    State.UNRESPONSIVE: "does not answer",
    State.STOPPING: "is stopping",
    State.STOPPED: "was stopped",
    State.FAILED: "failed",
    State.LOST: "was lost",
}


def why(error: LlmtopError) -> str:
    """An error and its hint on one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def status_words(name: str, status: EngineStatus) -> str:
    """The state of an engine, with cause and advice if it failed."""
    text = f"{name} {STATES[status.state]}"
    if status.state is State.FAILED and status.record.cause:
        text += f": {status.record.cause}"
        if status.record.advice:
            text += f"; {status.record.advice}"
    return text


def why_silent(status: EngineStatus | None) -> str:
    """Why a running engine does not answer, from the state of its processes; "" if it answers."""
    if status is None or status.state is not State.UNRESPONSIVE:
        return ""
    how = "is frozen" if "stopped by a signal" in status.phase else "does not answer"
    return clean(f"{status.record.name} {how}: {status.phase}")


def remaining(left_s: float) -> str:
    """The estimated remaining time. left_s: estimate minus elapsed time."""
    return f"about {duration(left_s)} left" if left_s >= 0.5 else "longer than estimated"


def left_words(name: str, left: Sequence[Left]) -> str:
    """Options that a killed llmtop left changed, with the command to restore them; "" for none."""
    if not left:
        return ""
    works = {one.work: [other for other in left if other.work == one.work] for one in left}
    changes = "; ".join(
        f"{work} was killed: "
        + ", ".join(
            f"{one.option} is {value_words(one.option, one.now)}, "
            f"was {value_words(one.option, one.before)}"
            for one in ones
        )
        for work, ones in works.items()
    )
    pairs = " ".join(
        f"{one.option}={shlex.quote(_typed(one.before))}" for one in left if one.before is not None
    )
    restart = " --restart" if any(one.by_restart for one in left) else ""
    command = f": llmtop set {name} {pairs}{restart}" if pairs else ""
    return changes + command


def _typed(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_words(option: str, value: OptionValue) -> str:
    """The value of an option as text. Speculation with 0 draft tokens is off."""
    if value is None:
        return "--"
    if isinstance(value, bool):
        return "on" if value else "off"
    if option == "num_speculative_tokens" and value == 0:
        return "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


def lengths(spread: Lengths) -> str:
    """Lengths in tokens as on the command line: ``128``, ``448..576``, ``lognormal 512 cv 1``."""
    if isinstance(spread, LogNormal):
        return f"lognormal {spread.mean:g} cv {spread.cv:g} max {spread.highest:g}"
    low, high = spread
    return f"{low}" if low == high else f"{low}..{high}"


def change_words(change: Change, me: str = "") -> str:
    """A change on one line: option, old and new value, outcome, author.

    me: an author that is not named.
    """
    before, after = (
        value_words(change.option, change.before),
        value_words(change.option, change.after),
    )
    text = f"{change.option} {before} -> {after}"
    if change.outcome is Outcome.REFUSED:
        text += f" refused: {change.reason}" if change.reason else " refused"
    elif change.ranks:
        text += f" {outcome_words(change)}"
        text += f"; {change.reason}" if change.reason else ""
    elif change.outcome is Outcome.PENDING:
        text += ", waits for the engine's next step"
    if change.evicted:
        text += f", {change.evicted:,} requests put back"
    if change.by and change.by != me:
        text += f" (by {change.by})"
    return text


def flag_words(flags: Iterable[str]) -> str:
    """The flags of an engine on one line, without secrets."""
    return clean(" ".join(redact(flags)))


def cost_words(expected_s: float | None, in_flight: int | None, *, rolling: bool = False) -> str:
    """The expected cost of a restart: its time, and the number of stopped requests.

    None: not known. rolling: the new process starts before the old one stops.
    """
    about = f"about {expected_s:,.0f} s" if expected_s is not None else "unknown time"
    if rolling:
        # The text after the semicolon must fit on one line of a dialog at 80 columns.
        return f"rolling restart, {about}; the new process starts first, no request is stopped"
    if in_flight is None:
        return f"restart, {about}"
    if in_flight == 0:
        return f"restart, {about}; no request is in flight"
    noun = "request in flight is" if in_flight == 1 else "requests in flight are"
    return f"restart, {about}; {in_flight:,} {noun} stopped first"


def mark_words(change: Change) -> str:
    """A change as a short text for the border of a chart."""
    before, after = (
        value_words(change.option, change.before),
        value_words(change.option, change.after),
    )
    return f"{SHORT.get(change.option, change.option)} {before}->{after}"


def effect_words(effect: Effect) -> tuple[str, ...]:
    """The effect of a change as parts of a sentence, the most important first.

    ``seqs 64->256: TTFT p95 412ms -> 188ms``, ``tok/s 3,173 -> 6,390``, ``n=812, 1,640 in 10s``.
    """
    before, after = effect.before, effect.after
    if before is None or after is None:
        return (f"{effect.label}: before and after unknown", effect.missing)
    windows = [span(round(figures.window_s)) for figures in (before, after)]
    over = windows[0] if windows[0] == windows[1] else " and ".join(windows)
    parts = [
        f"{effect.label}: TTFT p95 {quantile(before.ttft_p95)} -> {quantile(after.ttft_p95)}",
        f"tok/s {rate(before.tokens_per_s)} -> {rate(after.tokens_per_s)}",
        f"n={count(before.n)}, {count(after.n)} in {over}",
    ]
    known = all(q is not None and q.value is not None for q in (before.ttft_p95, after.ttft_p95))
    if not known and before.ttft_mean is not None and after.ttft_mean is not None:
        mean = f"mean {latency(before.ttft_mean)} -> {latency(after.ttft_mean)}"
        parts.insert(1, mean)  # the mean is exact; the percentiles are ranges
    if effect.by == "server":
        parts.append("the server's own")
    if effect.load_differs:
        parts.append(f"different load: {short(before.asked)} -> {short(after.asked)}")
    elif effect.levels is not None:
        low, high = effect.levels
        parts.append(f"load changed meanwhile, {short(low)}..{short(high)}")
    elif effect.load_started_or_stopped:
        parts.append("the load started or stopped meanwhile")
    if effect.disturbed:
        parts.append("another change meanwhile")
    return tuple(parts)


def startup_words(elapsed: float, before: float | None) -> str:
    """The progress of a start: ``23s of about 1m38s last time``.

    elapsed: seconds. before: seconds of the last start of this model, None: not known.
    """
    return duration(elapsed) + (f" of about {duration(before)} last time" if before else "")
