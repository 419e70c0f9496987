"""The candidates of a tune as a table: settings, expected and measured goodput. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from llmtop.operations.slo.limits import MEASURED, ROLES, UNLIMITED
from llmtop.operations.slo.tuner import Tried
from llmtop.tui.commands.experiment_requests import TuneState
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit
from llmtop.wording import format as f

SHORT = {
    "batch_limit": "batch",
    "queue_limit": "queue",
    "token_budget": "budget",
    "draft_tokens": "drafts",
    "prefill_threshold": "prefill",
}
COLUMNS = (("batch", 7), ("queue", 7), ("budget", 8), ("drafts", 8), ("prefill", 9))
EXPECTED_CELLS, MEASURED_CELLS, RUNS = 12, 22, 6


def tried_rows(state: TuneState, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A header and a row for each candidate, the operator's own settings first."""
    names = [name for name, _ in COLUMNS if name in _by_column(state.own)]
    sizes = dict(COLUMNS)
    head = "  " + "".join(f"{name:>{sizes[name]}}" for name in names)
    wide = width >= len(head) + EXPECTED_CELLS + MEASURED_CELLS + RUNS + 10
    head += f"{'expected/s':>{EXPECTED_CELLS}}" if wide else ""
    head += f"{'in time/s':>{MEASURED_CELLS}}{'runs':>{RUNS}}"
    rows = [fit([(head, MUTED)], width)]
    best = state.report.settings if state.report is not None else None
    for number, one in enumerate(state.tried or _begun(state)):
        if state.over and not one.measured:
            continue
        here = state.now == one.settings
        spans: list[Span] = [(f" {glyphs.cursor if here else ' '}", "key")]
        values = _by_column(one.settings)
        for name in names:
            spans.append((_limit(values.get(name)).rjust(sizes[name]), STRONG if here else TEXT))
        if wide:
            spans.append((f.rate(one.expected).rjust(EXPECTED_CELLS), MUTED))
        spans.append((_measured(one).rjust(MEASURED_CELLS), STRONG))
        spans.append((str(len(one.measured) or "").rjust(RUNS), MUTED))
        spans.append((f"  {_note(number, one, state, best)}", "good" if number else MUTED))
        rows.append(fit(spans, width))
    return rows[:height]


def candidate_words(settings: Mapping[str, int]) -> str:
    """Settings in a few words: ``batch 128, queue 16``."""
    found = _by_column(settings)
    return ", ".join(f"{name} {_limit(found[name])}" for name, _ in COLUMNS if name in found)


def _begun(state: TuneState) -> tuple[Tried, ...]:
    return (Tried(state.own, None, ()),) if state.own else ()


def _by_column(settings: Mapping[str, int]) -> dict[str, int]:
    known = {name: SHORT[role] for role, names in {**ROLES, **MEASURED}.items() for name in names}
    return {known[name]: value for name, value in settings.items() if name in known}


def _limit(value: int | None) -> str:
    if value is None:
        return f.ABSENT
    return "none" if not 0 < value < UNLIMITED else f"{value:,}"


def _measured(one: Tried) -> str:
    """The mean of the runs, with their range if there are several."""
    found: Sequence[float] = one.goodput_per_s
    if not found:
        return f.ABSENT
    if len(found) == 1:
        return f.rate(found[0])
    return f"{f.rate(fmean(found))} ({f.rate(min(found))}..{f.rate(max(found))})"


def _note(number: int, one: Tried, state: TuneState, best: Mapping[str, int] | None) -> str:
    if not number:
        return "yours"
    result = state.report.result if state.report is not None else None
    found = result is not None and result.settings and best == one.settings
    return "best" if found and best != state.own else ""
