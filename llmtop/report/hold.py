"""The sections of a hold: how many requests were in time, and what was set when, and why."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import entries, flag, items, number, text, whole
from llmtop.report.runs import Run
from llmtop.report.tuning import settings_words
from llmtop.wording.format import count, duration, percent, rate

METHOD = (
    "All counts are the engine's own. A TTFT begins when the engine has the request. A request may"
    " break two limits, so the number of late ones is an upper bound. What would have happened"
    " without the hold was not measured."
)
CANNOT = "cannot hold"  # begins the reason while no setting keeps the limits
MOST_CHARTS = 4


def hold_sections(run: Run) -> list[Section]:
    """Counts, the limits over time, and every action with its reason."""
    found = run.found
    actions = items(found, "actions")
    refused, accepted = number(found, "refused"), number(found, "accepted")
    ended, late = number(found, "ended"), number(found, "late")
    asked = (refused or 0) + (accepted or 0)
    facts = (
        ("Limits", text(found, "slo") or "--"),
        ("Held for", duration(number(found, "seconds"))),
        ("Requests a second in time", rate(number(found, "goodput_per_s"))),
        ("Requests that the engine accepted", count(accepted)),
        ("Requests that ended", count(ended)),
        ("Refused with status 503", counted(refused, asked)),
        ("Late, at most", counted(late, ended)),
        ("Late by TTFT", count(number(found, "late_ttft"))),
        ("Late by TPOT", count(number(found, "late_tpot"))),
        ("Changes of a limit", count(float(sum(1 for one in actions if text(one, "option"))))),
        ("The engine's own settings", settings_words(found.get("own_settings"))),
    )
    return [
        Section(
            f"Held: {run.label}", paragraphs=(METHOD,), facts=facts, charts=_charts(run, actions)
        ),
        Section(f"What was done: {run.label}", tables=(_actions(run, actions),)),
    ]


def hold_cautions(run: Run) -> list[str]:
    """What limits the use of a hold, and what a reader must know of the engine."""
    found = []
    if refused := whole(run.found, "refused"):
        found.append(f"{refused:,} requests were refused. Their clients had to ask again.")
    if any(text(one, "why").startswith(CANNOT) for one in items(run.found, "actions")):
        found.append("For a time no setting kept the limits.")
    if why := text(run.found, "ended_because"):
        found.append(f"The hold ended before its time: {why}.")
    if flag(run.found, "restored") is False:
        left = settings_words(run.found.get("not_restored"))
        found.append(f"The engine does not have its own settings again: {left}.")
    return found


def counted(many: float | None, whole_: float | None) -> str:
    """``41 (0.8%)``."""
    if many is None:
        return "--"
    return f"{count(many)} ({percent(many / whole_)})" if whole_ else count(many)


def _began(run: Run) -> float | None:
    """When it began, unix seconds: the document is made at its end."""
    end, seconds = number(run.found, "time"), number(run.found, "seconds")
    return end - seconds if end is not None and seconds is not None else None


def _since(run: Run, one: Any) -> float | None:
    began, at = _began(run), number(one, "time")
    return max(0.0, at - began) if began is not None and at is not None else None


def _actions(run: Run, actions: list[Any]) -> Table:
    rows = tuple(
        (
            duration(_since(run, one)),
            text(one, "option"),
            _limit(text(one, "option"), number(one, "from")),
            _limit(text(one, "option"), number(one, "to")),
            text(one, "why"),
        )
        for one in actions
    )
    columns = ("After", "Option", "From", "To", "Reason")
    return Table("Every action, with its reason", columns, rows, frozenset({2, 3}))


def _limit(option: str, value: float | None) -> str:
    if not option:
        return ""
    return "none" if value == 0 and "queue" in option else count(value)


def _charts(run: Run, actions: list[Any]) -> tuple[Chart, ...]:
    """Each limit over time. A limit that is none is a gap."""
    seconds = number(run.found, "seconds")
    if seconds is None:
        return ()
    own = dict(entries(run.found, "own_settings"))
    options = list(dict.fromkeys(text(one, "option") for one in actions if text(one, "option")))
    found = []
    for option in options[:MOST_CHARTS]:
        moves = [
            (when, number(one, "to"))
            for one in actions
            if text(one, "option") == option and (when := _since(run, one)) is not None
        ]
        begun = number({"x": own.get(option)}, "x")
        points: list[tuple[float, float | None]] = [(0.0, _drawn(option, begun))]
        for when, value in moves:
            points += [(when, points[-1][1]), (when, _drawn(option, value))]
        points.append((max(seconds, points[-1][0]), points[-1][1]))
        known = [value for _, value in points if value is not None]
        if not known:
            continue
        words = (
            f"{option}: {len(moves):,} changes, lowest {count(min(known))},"
            f" highest {count(max(known))}."
            + (" A gap is no limit." if len(known) < len(points) else "")
        )
        found.append(
            Chart(
                f"{option} over time, {run.label}",
                "seconds since the hold began",
                option,
                (Series(option, tuple(points)),),
                words,
            )
        )
    return tuple(found)


def _drawn(option: str, value: float | None) -> float | None:
    return None if value == 0 and "queue" in option else value
