"""Formats forecasts, tunes and holds as text, for the command line and the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmtop.forecast.intervals import Interval
from llmtop.forecast.load import Load
from llmtop.operations.slo.ask import Forecast
from llmtop.operations.slo.holder import HoldReport
from llmtop.operations.slo.limits import UNLIMITED
from llmtop.operations.slo.tuner import TuneReport
from llmtop.slo_control.search import LEAST_GAIN, Verdict
from llmtop.wording.format import count, duration, latency, percent, rate

Words = Callable[[float | None], str]
FIGURES: tuple[tuple[str, str, Words], ...] = (
    ("output tok/s", "output_tokens_per_s", count),
    ("requests/s", "requests_per_s", rate),
    ("in time/s", "goodput_per_s", rate),
    ("refused", "refused", percent),
    ("TTFT p50", "ttft_p50", latency),
    ("TTFT p95", "ttft_p95", latency),
    ("TPOT p50", "tpot_p50", latency),
    ("TPOT p95", "tpot_p95", latency),
    ("ITL p99", "itl_p99", latency),
)
ROLES = {"batch_limit": "batch limit", "token_budget": "token budget", "queue_limit": "queue limit"}


def forecast_lines(found: Forecast) -> list[str]:
    """A forecast as lines of text; empty without an answer."""
    known, answer, now = found.known, found.answer, found.now
    if known is None or answer is None or now is None or found.load is None:
        return []
    seen = known.fit.seen
    lines = [
        f"{known.name}: fitted on {seen.steps:,} steps ({duration(seen.seconds)});"
        f" error of a step {percent(known.fit.median_error)} median,"
        f" {percent(known.fit.p90_error)} p90",
        f"  load: {load_words(found.load)}",
    ]
    before, after = settings_words(found.settings_now), settings_words(found.settings)
    same = found.settings == found.settings_now
    lines.append(f"  settings now: {before}")
    if not same:
        lines.append(f"  settings in question: {after}")
    heads = ("", "as it is", "in question", "") if answer is not now else ("", "expected", "", "")
    rows = [heads]
    for title, name, words in FIGURES:
        one, other = now.expected.get(name), answer.expected.get(name)
        if one is None and other is None:
            continue
        if name == "refused" and not any(x is not None and x.high > 0 for x in (one, other)):
            continue
        rows.append(
            (title, ranged(one, words), ranged(other, words), _claim(found.claims.get(name)))
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        lines.append("  " + "  ".join(cells).rstrip())
    if answer.on_the_edge:
        lines.append("  on the edge: small changes of the engine decide how many are in time")
    lines += knee_lines(found)
    return lines


def ranged(found: Interval | None, words: Words) -> str:
    """Format an interval: ``6.6k (6.3k to 7.0k)``. words: formats one value."""
    if found is None:
        return "--"
    middle, low, high = words(found.value), words(found.low), words(found.high)
    return middle if low == high else f"{middle} ({low} to {high})"


def load_words(load: Load) -> str:
    """Format a load as a line."""
    unit = "requests/s" if load.loop == "open" else "streams"
    level = f"{rate(load.level)} {unit}"
    words = f"{level}, prompts of {load.prompt.mean:,.0f} and answers of {load.output.mean:,.0f}"
    cached = f", {percent(load.cached)} of the prompts cached" if load.cached >= 0.005 else ""
    return f"{words} tokens{cached}"


def settings_words(settings: Mapping[str, int]) -> str:
    """Format settings as a line, without limits that are off."""
    limits = {role: value for role, value in settings.items() if 0 < value < UNLIMITED}
    parts = [f"{ROLES[role]} {value:,}" for role, value in limits.items()]
    return ", ".join(parts) or "no limits"


def knee_lines(found: Forecast) -> list[str]:
    """The knee in a line, or why it is unknown; empty if it was not asked for."""
    knee = found.knee
    if knee is None:
        return []
    where = "" if found.settings == found.settings_now else " with the settings in question"
    if knee.streams is not None:
        one = knee.streams
        return [
            f"  knee of throughput{where} at about {one.value:,.0f} streams"
            f" ({one.low:,.0f} to {one.high:,.0f})"
        ]
    if knee.refused is not None:
        return [f"  knee{where}: not known; {knee.refused.reason}"]
    return []


def _claim(word: str | None) -> str:
    return {"more": "higher", "less": "lower", "no claim": "about the same"}.get(word or "", "")


def tune_sentence(name: str, slo: str, report: TuneReport) -> str:
    """The verdict of a tune as a sentence."""
    result = report.result
    if result is None:
        return f"{name}: nothing was decided"
    ratio = result.ratio
    settings = ", ".join(f"{option} {value:,}" for option, value in report.settings.items())
    if result.verdict is Verdict.BETTER and ratio is not None:
        span = ""
        if ratio.low:
            span = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.high else ""
            span = span or f" (at least {ratio.low:.2f})"
        return (
            f"{name}: {settings} serves {ratio.value:.2f} times{span} as many requests within"
            f" {slo}, in {ratio.pairs} pairs"
        )
    if result.verdict is Verdict.NOTHING:
        margin = percent(LEAST_GAIN - 1)
        return f"{name}: nothing to gain within {slo} under this load: no gain of {margin}"
    if ratio is None:
        return f"{name}: cannot tell: no request came in the first run; send load, or give --rate"
    if report.time_up:
        return f"{name}: cannot tell in {duration(report.seconds)} whether any setting is better"
    return f"{name}: cannot tell whether any setting is better; the runs differ too much"


def hold_sentence(name: str, slo: str, report: HoldReport) -> str:
    """The result of a hold as a sentence."""
    outcomes = report.outcomes
    return (
        f"{name} was held for {duration(report.seconds)} within {slo}: "
        f"{rate(report.goodput_per_s)} requests a second in time,"
        f" {report.refused:,} refused, at most {outcomes.late:,} late"
        f" ({percent(outcomes.late_share)})"
    )
