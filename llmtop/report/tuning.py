"""The sections of a tune: the settings that were tried, the best ones, and the commands that set
them."""

from __future__ import annotations

import shlex
from statistics import fmean
from typing import Any

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import at, entries, flag, items, number, plain, text, whole
from llmtop.report.runs import Run
from llmtop.wording.format import count, duration, percent, rate

FORECAST = "A forecast chose the settings to try."
SPREAD = "There was no forecast. The settings to try were spread over the possible values."
METHOD = (
    "They were measured in rounds together with the engine's own settings, until the difference was"
    " certain. The runs of a round meet the same arrivals, with new prompts. The verdict comes from"
    " pairs of runs of the same round, not from the means in the table."
)
GOODPUT = "requests a second within limits"


def tuning_sections(run: Run) -> list[Section]:
    """The verdict, every setting that was tried, and the commands that set the best one."""
    document = run.document
    tried = items(document, "tried")
    better = text(document, "verdict") == "better"
    foreseen = any(number(one, "expected_goodput_per_s") is not None for one in tried)
    own, best = (
        settings_words(at(document, "own_settings")),
        settings_words(at(document, "settings")),
    )
    facts = (
        ("Limits", text(document, "slo") or "--"),
        ("Verdict", text(document, "verdict") or "not decided"),
        ("Best settings", best if better else f"the engine's own: {own}"),
        ("The engine's own settings", own),
        ("Requests within limits, against its own settings", ratio_words(document)),
        ("Runs", f"{count(number(document, 'runs'))} in {duration(number(document, 'seconds'))}"),
    )
    sections = [
        Section(
            f"Tuning: {run.label}",
            paragraphs=(f"{FORECAST if foreseen else SPREAD} {METHOD}",),
            facts=facts,
            tables=(_tried(run, tried),),
            charts=_chart(run, tried),
        )
    ]
    if better:
        words = [shlex.quote(f"{name}={value}") for name, value in _settings(document)]
        line = f"llmtop set {shlex.quote(text(document, 'name') or 'NAME')} {' '.join(words)}"
        sections.append(Section(f"Set it now: {run.label}", code=line))
        if launch := text(document, "launch_line", limit=2000):
            sections.append(Section(f"At each launch: {run.label}", code=launch))
    return sections


def tuning_cautions(run: Run) -> list[str]:
    """What limits the use of a tune."""
    found = []
    if flag(run.document, "stopped"):
        found.append("The search was stopped before its end.")
    if flag(run.document, "restored") is False:
        found.append("The engine's own settings were not restored.")
    if text(run.document, "verdict") == "cannot tell":
        found.append("No setting is known to be better. The runs differ too much, or are too few.")
    if any(one == 0 for run_ in items(run.document, "tried") for one in _list(run_, "requests")):
        found.append("Some runs broke the limits at once, or got no request. They count as 0.")
    return found


def settings_words(settings: Any) -> str:
    """Settings in words: ``max_num_seqs 128, max_queued_requests none``. A queue limit of 0 means
    no limit."""
    parts = [
        f"{name} {'none' if value == 0 and 'queue' in name else plain(value)}"
        for name, value in entries({"settings": settings}, "settings")
    ]
    return ", ".join(parts) or "--"


def ratio_words(document: Any) -> str:
    """The ratio of goodput with its interval: ``1.50 times (1.21 to 1.86), 3 pairs``."""
    value, low, high = (
        number(document, "goodput_ratio", name) for name in ("value", "low", "high")
    )
    pairs = whole(document, "goodput_ratio", "pairs")
    if value is None or not pairs:
        return "not measured in pairs"
    span = ""
    if low is not None:
        span = f" ({low:.2f} to {high:.2f})" if high is not None else f" (at least {low:.2f})"
    return f"{value:.2f} times{span}, {pairs:,} pairs"


def _settings(document: Any) -> list[tuple[str, int]]:
    """The best settings that are whole numbers. Any other value is invalid and left out."""
    named = [(name, whole({"x": value}, "x")) for name, value in entries(document, "settings")]
    return [(name, value) for name, value in named if value is not None]


def _list(document: Any, name: str) -> list[float | None]:
    value = at(document, name)
    return [number({"x": one}, "x") for one in value[:200]] if isinstance(value, list) else []


def _mean(one: Any) -> float | None:
    known = [value for value in _list(one, "goodput_per_s") if value is not None]
    return fmean(known) if known else None


def _interval(one: Any) -> tuple[float, float] | None:
    low, high = (*_list(one, "interval"), None, None)[:2]
    return None if low is None or high is None else (low, high)


def _use(run: Run, one: Any) -> str:
    """``own`` for the engine's own settings, ``best`` for the best ones, "" for others."""
    words = settings_words(at(one, "settings"))
    if words == settings_words(at(run.document, "own_settings")):
        return "own"
    better = text(run.document, "verdict") == "better"
    return "best" if better and words == settings_words(at(run.document, "settings")) else ""


def _tried(run: Run, tried: list[Any]) -> Table:
    rows = []
    for index, one in enumerate(tried, 1):
        interval = _interval(one)
        shares = [share for share in _list(one, "in_time_share") if share is not None]
        requests = [n for n in _list(one, "requests") if n is not None]
        rows.append(
            (
                str(index),
                settings_words(at(one, "settings")),
                _use(run, one),
                rate(_mean(one)),
                f"{rate(interval[0])} to {rate(interval[1])}" if interval is not None else "--",
                rate(number(one, "expected_goodput_per_s")),
                count(float(len(_list(one, "goodput_per_s")))),
                count(sum(requests)) if requests else "--",
                _span([percent(share) for share in (min(shares), max(shares))] if shares else []),
            )
        )
    columns = ("No.", "Settings", "Which", "Measured", "95 % interval", "Forecast", "Runs",
               "Requests", "Within limits")  # fmt: skip
    caption = f"Settings that were tried; forecast and measured: {GOODPUT}"
    return Table(caption, columns, tuple(rows), frozenset({0, 3, 4, 5, 6, 7, 8}))


def _span(ends: list[str]) -> str:
    if not ends:
        return "--"
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _chart(run: Run, tried: list[Any]) -> tuple[Chart, ...]:
    """The mean of each setting with its interval, and its forecast."""
    points, spans, expected, words = [], [], [], []
    for index, one in enumerate(tried, 1):
        mean, interval = _mean(one), _interval(one)
        if mean is not None:
            points.append((float(index), mean))
            words.append(f"{index} {settings_words(at(one, 'settings'))}: {rate(mean)}")
        if interval is not None:
            spans.append((float(index), *interval))
        if (forecast := number(one, "expected_goodput_per_s")) is not None:
            expected.append((float(index), forecast))
    if not points:
        return ()
    series = [Series("measured, mean of its runs", tuple(points), tuple(spans), "dots")]
    if expected:
        series.append(Series("forecast", tuple(expected), role="forecast"))
    return (
        Chart(
            f"Requests within limits by setting, {run.label}",
            "number of the setting in the table",
            GOODPUT,
            tuple(series),
            f"Mean {GOODPUT} with 95 % intervals, by setting: " + "; ".join(words) + ".",
        ),
    )
