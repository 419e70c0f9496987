"""Rows that show an expected effect and the measured one beside it. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtop.tui.commands.effect_words import FIGURES, GOOD, Formatter, answers_of, measured_words
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.tui.widgets.row import width as cells_of
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.forecast.questions import Answer
    from llmtop.tui.commands.forecast_requests import EffectForecast

NAME = 11  # cells of a figure's name
ROOM = 6  # rows of the block: the figures and their basis
ROLES = {"more": "higher", "less": "lower"}


def effect_rows(found: EffectForecast, cells: int, most: int, glyphs: Glyphs) -> list[Row]:
    """At most ``most`` rows of ``cells`` cells.

    There are as many rows while the answer is computed as after it, so that nothing moves.
    """
    if found.refused:
        lines = textwrap.wrap(f.clean(f"no forecast: {found.refused}", 300), max(10, cells - 2))
        if len(lines) > most:
            lines = [*lines[: most - 1], shorten(" ".join(lines[most - 1 :]), cells - 2)]
        return [fit([(f" {line}", MUTED)], cells) for line in lines]
    answers = answers_of(found)
    if answers is None:
        waiting = fit([(" expected ", MUTED), ("…", MUTED)], cells)
        return [waiting, *[fit((), cells)] * (min(ROOM - 1, most) - 1)]
    now, answer = answers
    rows = []
    for title, name, formatter in FIGURES:
        if _shown(name, now, answer):
            rows.append(_figure(found, title, name, formatter, cells, glyphs))
    basis = [(f" {shorten(_basis(found), cells - 2)}", MUTED)]
    return [*rows[:most], fit(basis, cells)][:most]


def _shown(name: str, now: Answer, answer: Answer) -> bool:
    one, other = now.expected.get(name), answer.expected.get(name)
    if name == "refused":
        return any(found is not None and found.high > 0 for found in (one, other))
    return one is not None or other is not None


def _figure(
    found: EffectForecast, title: str, name: str, formatter: Formatter, cells: int, glyphs: Glyphs
) -> Row:
    forecast = found.forecast
    assert forecast is not None and forecast.now is not None and forecast.answer is not None
    one, other = forecast.now.expected.get(name), forecast.answer.expected.get(name)
    claim = forecast.claims.get(name, "")
    before = formatter(one.value) if one is not None else f.ABSENT
    after = formatter(other.value) if other is not None else f.ABSENT
    spans: list[Span] = [
        (f" {title}".ljust(NAME), MUTED),
        (before.rjust(6), TEXT),
        (f" {glyphs.arrow} ", MUTED),
        (after, STRONG),
    ]
    if other is not None and other.low != other.high:
        spans.append((f" ({formatter(other.low)} to {formatter(other.high)})", MUTED))
    measured = measured_words(found.measured, name, formatter) if found.measured is not None else ""
    end: list[Span] = []
    if measured:
        end = [("  measured ", MUTED), (measured, "mark")]
    elif name == GOOD and forecast.answer.on_the_edge:
        end = [("  on the edge", "warn")]
    elif claim:
        end = [(f"  {ROLES.get(claim, 'about the same')}", MUTED)]
    if cells_of(spans) + cells_of(end) > cells and len(spans) > 4 and measured:
        spans = spans[:4]  # the measurement matters more than the interval
    return fit([*spans, *end], cells)


def _basis(found: EffectForecast) -> str:
    """The data that the figures are based on."""
    known = found.forecast.known if found.forecast is not None else None
    parts: Sequence[str] = ()
    if found.measured is not None:
        remark = f", {found.measured.remark}" if found.measured.remark else ""
        parts = (f"measured: n={found.measured.n:,} in {f.span(found.measured.seconds)}{remark}",)
    elif found.since is not None:
        parts = ("being measured: 15 s",)
    if known is not None:
        seen = known.fit.seen
        parts = (
            *parts,
            f"step error {f.percent(known.fit.median_error)}, {f.duration(seen.seconds)} of steps",
        )
    return "; ".join((*parts, f"limits {found.question.slo}"))
