"""The levels of a search as a table, the newest on top. Pure."""

from __future__ import annotations

from llmtop.loadgen.level import LevelResult
from llmtop.loadgen.saturate import SaturationResult
from llmtop.loadgen.slo import Slo
from llmtop.tui import format as f
from llmtop.tui.panels.curve import INVALID
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten

HEADS = (
    ("streams", 8), ("tok/s", 8), ("TTFT p50", 9), ("p95", 8), ("TPOT p95", 9), ("in time", 8),
    ("n", 6),
)  # fmt: skip
WIDE_HEADS = (("+-", 6), ("e2e p95", 9), ("window", 8), ("tok/J", 7))
WIDE = 104  # cells from which the columns of WIDE_HEADS have room


def level_rows(result: SaturationResult, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A head and as many levels as fit."""
    heads = [*HEADS, *(WIDE_HEADS if width >= WIDE else ())]
    head = "".join(name.rjust(cells) for name, cells in heads)
    rows: list[Row] = [fit([(head, MUTED)], width, MUTED)]
    for level in list(reversed(result.levels))[: max(0, height - 1)]:
        rows.append(_row(level, result.slo or Slo(), width, glyphs))
    if not result.levels and height > 1:
        rows.append(fit([("  no level is measured yet", MUTED)], width))
    return rows


def _row(level: LevelResult, slo: Slo, width: int, glyphs: Glyphs) -> Row:
    share = level.in_time / level.n if level.n else None
    limits = bool(slo.limits)
    role = STRONG if level.valid else MUTED
    spans: list[Span] = [
        (f"{level.level:,}".rjust(8), role),
        (f.rate(level.output_tokens_per_s).rjust(8), "tokens" if level.valid else MUTED),
        (f.latency(level.ttft.p50).rjust(9), TEXT),
        *_against(level.ttft.p95, slo.ttft, 8, glyphs),
        *_against(level.tpot.p95, slo.tpot, 9, glyphs),
        ((_share(share) if limits else f.ABSENT).rjust(8), _standing(share) if limits else MUTED),
        (f.count(level.n).rjust(6), MUTED),
    ]
    if width >= WIDE:
        error = f.ABSENT if level.error is None else f"{2 * level.error:.1%}"
        joule = level.tokens_per_joule
        spans += [
            (error.rjust(6), MUTED),
            *_against(level.e2e.p95, slo.e2e, 9, glyphs),
            (f.span(level.seconds).rjust(8), MUTED),
            ((f.ABSENT if joule is None else f"{joule:.1f}").rjust(7), TEXT if joule else MUTED),
        ]
    words, note = _note(level)
    room = width - sum(len(text) for text, _ in spans) - 2
    if words and room > 4:
        spans.append((f"  {shorten(words, room)}", note))
    return fit(spans, width)


def _against(value: float | None, limit: float | None, cells: int, glyphs: Glyphs) -> list[Span]:
    """A latency; over its limit it is marked, not only coloured."""
    over = value is not None and limit is not None and value > limit
    words = f"{glyphs.up}{f.latency(value)}" if over else f.latency(value)
    return [(words.rjust(cells), "bad" if over else TEXT)]


def _share(share: float | None) -> str:
    """Never rounded up to all: 99.96 % is not 100 %."""
    if share is None:
        return f.ABSENT
    return "100%" if share == 1 else f"{min(share, 0.999):.1%}"


def _standing(share: float | None) -> str:
    if share is None:
        return MUTED
    return "good" if share >= 0.95 else "warn" if share >= 0.9 else "bad"


def _note(level: LevelResult) -> tuple[str, str]:
    if not level.valid:
        causes = "; ".join(level.health.causes) or level.health.verdict
        return f"{INVALID} {f.clean(causes, 100)}", "warn"
    if level.stalled:
        return "nothing ended", "bad"
    if level.failed or level.cut:
        return f"{level.failed + level.cut:,} failed", "bad"
    return ("", MUTED) if level.steady else ("not steady", "warn")
