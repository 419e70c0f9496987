"""The state of an engine and its causes on one page. Pure."""

from __future__ import annotations

from llmtop.diagnosis.causes import Cause, CauseFound, Explanation
from llmtop.diagnosis.explanation import effect_words
from llmtop.engines.core.options import Applies
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, sides, whole_parts
from llmtop.tui.widgets.row import width as cells_of
from llmtop.wording import format as f

BAR = 16
INDENT = 4


def why_rows(
    found: Explanation, engine: EngineTrack, badge: Span, view: View, width: int
) -> list[Row]:
    """The page without its keys, in as many rows as it needs."""
    since = engine.why_since
    right: list[Span] = []
    if since is not None:
        right = [(f"since {f.duration(view.now - since)} ", MUTED)]
    because = found.main.words if found.main.cause is not Cause.NONE else found.reasons[0]
    word = "" if found.main.cause is Cause.NONE else "because: "
    room = width - cells_of([badge]) - len(word) - cells_of(right) - 3
    head: list[Span] = [badge, (f" {word}", MUTED), (whole_parts(because, room), STRONG)]
    rows: list[Row] = [sides(head, right, width), ()]
    for number, cause in enumerate(found.causes):
        rows += _cause_rows(cause, number + 1, len(found.causes), view, width)
    for words in found.not_limits:
        rows.append(fit([(" " * INDENT, TEXT), (whole_parts(words, width - INDENT), MUTED)], width))
    rows += _basis_rows(found, width)
    return rows


def _cause_rows(cause: CauseFound, number: int, count: int, view: View, width: int) -> list[Row]:
    share: list[Span] = []
    if cause.share is not None and cause.cause not in (Cause.NONE, Cause.HUNG):
        drawn = bar(cause.share, BAR, "hot", view.glyphs) if width >= 100 else []
        share = [*drawn, (f" {f.percent(cause.share)} of a request's time ", STRONG)]
    numbered = f" {number}  " if count > 1 else "    "
    room = width - cells_of(share) - INDENT - 1
    left: list[Span] = [(numbered, MUTED), (whole_parts(cause.words, room), "title")]
    rows: list[Row] = [sides(left, share, width)]
    for words in cause.details:
        rows.append(fit([("      ", TEXT), (whole_parts(words, width - 7), TEXT)], width))
    rows += knob_rows(cause, width)
    if cause.advice:
        rows.append(_line("helps: ", cause.advice, width))
    return [*rows, ()]


def knob_rows(cause: CauseFound, width: int) -> list[Row]:
    """The option that would change the cause, and the expected effect; [] without one."""
    knob = cause.knob
    if knob is None:
        return []
    change = f"{knob.option} {f.option(knob.before)} {'->'} {f.option(knob.after)}"
    how = "needs a restart" if knob.applies is Applies.RESTART else "live"
    rows: list[Row] = [fit([("      try: ", MUTED), (change, "mark"), (f"  {how}", MUTED)], width)]
    effects = effect_words(knob.expected)
    if effects:
        rows.append(_line("expected: ", ", ".join(effects), width))
    if knob.basis:
        rows.append(fit([("      ", TEXT), (whole_parts(knob.basis, width - 7), MUTED)], width))
    return rows


def _line(name: str, words: str, width: int) -> Row:
    return fit([(f"      {name}", MUTED), (whole_parts(words, width - 7 - len(name)), TEXT)], width)


def _basis_rows(found: Explanation, width: int) -> list[Row]:
    basis = f"from {found.steps:,} steps in {f.span(found.window_s)}"
    if not found.steps:
        basis = f"from metrics over {f.span(found.window_s)}, without steps"
    rows: list[Row] = [(), fit([(f"    {basis}", MUTED)], width)]
    for name, why in list(found.missing.items())[:4]:
        words = whole_parts(f.clean(f"not seen: {name}: {why}", 200), width - INDENT)
        rows.append(fit([(" " * INDENT, TEXT), (words, MUTED)], width))
    return rows
