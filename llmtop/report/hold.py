"""The sections of a hold: how many requests kept the limits, and every change with its reason."""

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
CANNOT = "cannot hold"  # a reason begins with it while no setting keeps the limits
MOST_CHARTS = 4


def hold_sections(run: Run) -> list[Section]:
    """Counts, the limits over time, and every action with its reason."""
    document = run.document
    actions = items(document, "actions")
    refused, accepted = number(document, "refused"), number(document, "accepted")
    ended, late = number(document, "ended"), number(document, "late")
    asked = (refused or 0) + (accepted or 0)
    facts = (
        ("Limits", text(document, "slo") or "--"),
        ("Held for", duration(number(document, "seconds"))),
        ("Requests a second in time", rate(number(document, "goodput_per_s"))),
        ("Requests that the engine accepted", count(accepted)),
        ("Requests that ended", count(ended)),
        ("Refused with status 503", counted(refused, asked)),
        ("Late, at most", counted(late, ended)),
        ("Late by TTFT", count(number(document, "late_ttft"))),
        ("Late by TPOT", count(number(document, "late_tpot"))),
        ("Changes of a limit", count(float(sum(1 for one in actions if text(one, "option"))))),
        ("The engine's own settings", settings_words(document.get("own_settings"))),
    )
    return [
        Section(
            f"Held: {run.label}", paragraphs=(METHOD,), facts=facts, charts=_charts(run, actions)
        ),
        Section(f"Actions: {run.label}", tables=(_actions(run, actions),)),
    ]


def hold_cautions(run: Run) -> list[str]:
    """What limits the use of the result, and what the hold left changed on the engine."""
    found = []
    if refused := whole(run.document, "refused"):
        found.append(f"{refused:,} requests were refused. Their clients had to retry.")
    if any(text(one, "why").startswith(CANNOT) for one in items(run.document, "actions")):
        found.append("For a time no setting kept the limits.")
    if why := text(run.document, "ended_because"):
        found.append(f"The hold ended early: {why}.")
    if flag(run.document, "restored") is False:
        left = settings_words(run.document.get("not_restored"))
        found.append(f"The engine's own settings were not restored: {left}.")
    return found


def counted(many: float | None, whole_: float | None) -> str:
    """A count and its share of ``whole_``: ``41 (0.8%)``; ``--`` where the count is unknown."""
    if many is None:
        return "--"
    return f"{count(many)} ({percent(many / whole_)})" if whole_ else count(many)


def _began(run: Run) -> float | None:
    """When the hold began, unix seconds. ``time`` of the document is its end."""
    end, seconds = number(run.document, "time"), number(run.document, "seconds")
    return end - seconds if end is not None and seconds is not None else None


def _since(run: Run, one: Any) -> float | None:
    """Seconds from the start of the hold to an action."""
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
    """Each limit over time. A gap means no limit."""
    seconds = number(run.document, "seconds")
    if seconds is None:
        return ()
    own = dict(entries(run.document, "own_settings"))
    options = list(dict.fromkeys(text(one, "option") for one in actions if text(one, "option")))
    found = []
    for option in options[:MOST_CHARTS]:
        moves = [
            (when, number(one, "to"))
            for one in actions
            if text(one, "option") == option and (when := _since(run, one)) is not None
        ]
        first = number({"x": own.get(option)}, "x")
        points: list[tuple[float, float | None]] = [(0.0, _drawn(option, first))]
        for when, value in moves:
            points += [(when, points[-1][1]), (when, _drawn(option, value))]
        points.append((max(seconds, points[-1][0]), points[-1][1]))
        known = [value for _, value in points if value is not None]
        if not known:
            continue
        words = (
            f"{option}: {len(moves):,} changes, lowest {count(min(known))},"
            f" highest {count(max(known))}."
            + (" A gap means no limit." if len(known) < len(points) else "")
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
