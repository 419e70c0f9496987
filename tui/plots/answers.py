"""The results of a search as tables: the level for each share in time, earlier searches. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.loadgen.experiments.search import MAIN_SHARE, Answer, End
from llmtop.operations.curves import Curve
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.values import replace
from llmtop.wording import format as f
from llmtop.wording.findings import percent_change, streams

NAME, LEVEL = 18, 24  # cells of the name of a row, and of the level
FIGURES = (("tok/s", 8), ("req/s", 7), ("TTFT p95", 10), ("TPOT p95", 10), ("e2e p95", 9))
AGE = 12


def answer_rows(result: SaturationResult, width: int) -> list[Row]:
    """A header, a row for each share of requests in time, and one for the knee."""
    head = f"{'':{NAME}}{'streams':<{LEVEL}}" + "".join(
        f"{name:>{cells}}" for name, cells in FIGURES
    )
    rows = [fit([(head, MUTED)], width, MUTED)]
    for answer in result.answers:
        role = STRONG if answer.share == MAIN_SHARE else TEXT
        name = f" {answer.share:.0%} in time"
        rows.append(_row(name, _level_words(answer, result), answer.level, role, result, width))
    knee = result.knee
    if knee is not None:
        words = f"{knee.level:,} ({knee.low:,}..{f'{knee.high:,}' if knee.high else '?'})"
        if knee.open_end:
            words = f"still rises at {knee.best_level:,}"
        at = knee.best_level if knee.open_end else knee.level
        rows.append(_row(" best tok/s from", words, at, "tokens", result, width))
    return rows


def _row(
    name: str, words: str, level: int | None, role: str, result: SaturationResult, width: int
) -> Row:
    """A row with the figures of a level, from its last valid measurement."""
    spans: list[Span] = [(f"{name:<{NAME}}", TEXT), (f"{shorten(words, LEVEL - 1):<{LEVEL}}", role)]
    one = next((r for r in reversed(result.levels) if r.valid and r.level == level), None)
    texts = _figures(one) if one is not None else [f.ABSENT] * len(FIGURES)
    for (_, cells), text in zip(FIGURES, texts, strict=True):
        spans.append((text.rjust(cells), MUTED if one is None else TEXT))
    return fit(spans, width)


def _figures(level: LevelResult) -> list[str]:
    return [
        f.rate(level.output_tokens_per_s),
        f.rate(level.requests_per_s),
        f.latency(level.ttft.p95),
        f.latency(level.tpot.p95),
        f.latency(level.e2e.p95),
    ]


def _level_words(answer: Answer, result: SaturationResult) -> str:
    if answer.end is End.NEVER:
        return f"not even {answer.fails or 1:,}"
    if answer.level is None and answer.fails is None:
        return "cannot tell" if result.complete else "not known"
    if answer.level is None:
        return f"not {answer.fails:,}"
    if answer.fails is not None:
        return f"{answer.level:,} ({answer.level:,}..{answer.fails:,})"
    beyond = "or more" if result.ceiling is None else "the client's limit"
    return f"{answer.level:,}, {beyond}"


def earlier_rows(
    current: Curve, earlier: Sequence[Curve], limit: float | None, now: float, width: int
) -> list[Row]:
    """A row for each earlier curve, the newest first, compared with ``current``.

    limit: the limit of TTFT, seconds. now: unix seconds.
    """
    within = f"TTFT p95 <= {f.latency(limit)}" if limit is not None else ""
    head = f"{'':{AGE}}{'best tok/s':>11}{'now':>9}{within:>22}{'':3}{'what was different'}"
    rows = [fit([(head, MUTED)], width, MUTED)]
    best = _best(current)
    for curve in reversed(earlier):
        their_best = _best(curve)
        change = percent_change(best / their_best) if best and their_best else f.ABSENT
        holds = f"up to {_within(curve, limit) or f.ABSENT}" if limit is not None else ""
        spans: list[Span] = [
            (f" {f.duration(now - curve.time)} ago".ljust(AGE), TEXT),
            (f.rate(their_best).rjust(11), TEXT),
            (change.rjust(9), STRONG),
            (holds.rjust(22), TEXT),
        ]
        room = width - sum(len(text) for text, _ in spans) - 4
        spans.append(("   " + shorten(f.clean(curve.differs(current), 100), room), "mark"))
        rows.append(fit(spans, width))
    return rows


def _best(curve: Curve) -> float | None:
    return max((p.tokens_per_s for p in curve.points if p.valid), default=None)


def _within(curve: Curve, limit: float | None) -> str:
    """The highest level whose p95 of TTFT is within the limit, "" if none is."""
    kept = [
        p.level
        for p in curve.points
        if p.valid and limit is not None and p.ttft_p95 is not None and p.ttft_p95 <= limit
    ]
    return streams(max(kept)) if kept else ""


def earlier_words(
    earlier: Sequence[Curve], curve: Curve | None, now: float, room: int
) -> list[Span]:
    """The number of earlier curves, the age of the newest, and what was different in it.

    If the words do not fit into ``room`` cells, the last part is left out as a whole. curve: the
    current one.
    """
    newest = earlier[-1]
    age = f"{'newest ' if len(earlier) > 1 else ''}{f.duration(now - newest.time)} ago"
    difference = newest.differs(curve if curve is not None else replace(newest, options=()))
    difference = f": {f.clean(difference, 60)}" if difference else ""
    number = f"{len(earlier)} earlier curve{'s' if len(earlier) > 1 else ''}"
    if len(f"{number}, {age}{difference}") <= room:
        return [(f"{number}, {age}", MUTED), (difference, "mark")]
    return [(f"{number}, {age}" if len(f"{number}, {age}") <= room else number, MUTED)]
