"""The levels of a search as a table, the newest on top. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.loadgen.experiments.slo import Slo
from llmtop.tui.plots.curve import INVALID
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.wording import format as f

NOTE = 20  # cells reserved for a note: the columns do not move when one appears
GAP = 2  # cells before a note
SPREAD = 2  # extra cells of a column, at most, where there is room
CLIENT = "client"  # if no cause fits
Show = Callable[[LevelResult, Slo, Glyphs], Span]


class Column(Struct, frozen=True):
    """A column. rank: 0 is always shown; of the others, the highest is left out first."""

    name: str
    cells: int
    rank: int
    show: Show


def level_rows(result: SaturationResult, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A header and as many levels as fit. Columns are left out before a note is cut."""
    notes = [_notes(level) for level in result.levels]
    longest = max((len(words[0]) for words, _ in notes), default=0)
    columns, spread = _layout(result.levels, width - max(NOTE, longest + GAP))
    head = "".join(one.name.rjust(one.cells + spread) for one in columns)
    rows: list[Row] = [fit([(head, MUTED)], width, MUTED)]
    for level in list(reversed(result.levels))[: max(0, height - 1)]:
        rows.append(_row(level, result.slo or Slo(), columns, spread, width, glyphs))
    if not result.levels and height > 1:
        rows.append(fit([("  no level is measured yet", MUTED)], width))
    return rows


def _layout(levels: Sequence[LevelResult], room: int) -> tuple[list[Column], int]:
    """The columns that fit into ``room`` cells, and the extra cells of each."""
    columns = list(COLUMNS)
    if all(level.tokens_per_joule is None for level in levels):
        columns.remove(JOULE)
    while sum(one.cells for one in columns) > room and any(one.rank for one in columns):
        columns.remove(max(columns, key=lambda one: one.rank))
    spare = room - sum(one.cells for one in columns)
    return columns, max(0, min(SPREAD, spare // len(columns)))


def _row(
    level: LevelResult, slo: Slo, columns: list[Column], spread: int, width: int, glyphs: Glyphs
) -> Row:
    spans: list[Span] = []
    for one in columns:
        text, role = one.show(level, slo, glyphs)
        # The figures of an invalid level are no results, neither good nor bad ones.
        spans.append((text.rjust(one.cells + spread), role if level.valid else MUTED))
    choices, role = _notes(level)
    room = width - sum(len(text) for text, _ in spans) - GAP
    words = next((each for each in choices if len(each) <= room), choices[-1])
    return fit([*spans, (" " * GAP, TEXT), (shorten(words, room), role)], width)


def _against(value: float | None, limit: float | None, glyphs: Glyphs) -> Span:
    """A latency. Above its limit it has a mark, not only a colour."""
    over = value is not None and limit is not None and value > limit
    return f"{glyphs.up if over else ''}{f.latency(value)}", "bad" if over else TEXT


def _in_time(level: LevelResult, slo: Slo, glyphs: Glyphs) -> Span:
    share = level.in_time / level.n if level.n else None
    if share is None or not slo.limits:
        return f.ABSENT, MUTED
    # Never rounded up to 100 %: 99.96 % is shown as 99.9 %.
    words = "100%" if share == 1 else f"{min(share, 0.999):.1%}"
    return words, "good" if share >= 0.95 else "warn" if share >= 0.9 else "bad"


def _error(level: LevelResult, slo: Slo, glyphs: Glyphs) -> Span:
    return f.ABSENT if level.error is None else f"{2 * level.error:.1%}", MUTED


def _joule(level: LevelResult, slo: Slo, glyphs: Glyphs) -> Span:
    joule = level.tokens_per_joule
    return (f.ABSENT, MUTED) if joule is None else (f"{joule:.1f}", TEXT)


JOULE = Column("tok/J", 7, 3, _joule)
COLUMNS = (
    Column("streams", 8, 0, lambda one, _, __: (f"{one.level:,}", STRONG)),
    Column("tok/s", 8, 0, lambda one, _, __: (
        f.rate(one.output_tokens_per_s), "tokens"
    )),
    Column("+-", 6, 2, _error),
    Column("TTFT p50", 9, 0, lambda one, _, __: (f.latency(one.ttft.p50), TEXT)),
    Column("p95", 8, 0, lambda one, slo, glyphs: _against(one.ttft.p95, slo.ttft, glyphs)),
    Column("TPOT p95", 9, 0, lambda one, slo, glyphs: _against(one.tpot.p95, slo.tpot, glyphs)),
    Column("e2e p95", 9, 1, lambda one, slo, glyphs: _against(one.e2e.p95, slo.e2e, glyphs)),
    Column("in time", 8, 0, _in_time),
    Column("n", 6, 0, lambda one, _, __: (f.count(one.n), MUTED)),
    Column("window", 8, 4, lambda one, _, __: (f.span(one.seconds), MUTED)),
    JOULE,
)  # fmt: skip


def _notes(level: LevelResult) -> tuple[list[str], str]:
    """The note of a level in several lengths, the longest first, and its role."""
    if not level.valid:
        causes = [f.clean(cause, 60) for cause in level.health.causes]
        texts = [INVALID + " " + "; ".join(causes[:n]) for n in range(len(causes), 0, -1)]
        return [*texts, f"{INVALID} {CLIENT}", INVALID], MUTED
    if level.stalled:
        return ["nothing ended"], "bad"
    if level.failed or level.cut:
        return [f"{level.failed + level.cut:,} failed"], "bad"
    if level.refused:
        return [f"{level.refused:,} refused"], "warn"
    return ([""], MUTED) if level.steady else (["not steady"], "warn")
