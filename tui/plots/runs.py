"""A comparison run by run. It shows drift and outliers, which a mean hides. Pure."""

from __future__ import annotations

import math
from statistics import fmean

from llmtop.loadgen.experiments.comparison import CompareResult
from llmtop.loadgen.experiments.paired_test import PairedRatio
from llmtop.tui.plots.curve import INVALID
from llmtop.tui.plots.whiskers import reach_of
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, Row, Span, fit
from llmtop.wording.findings import NAMES, percent_change

LEFT = 8  # cells for the labels of the axis
WIDEST = 5.0  # cells of one run, at most
NARROWEST = 40  # cells of a chart with its border, at least
LEAST = 7  # rows of a chart with its border, at least


def runs_rows(
    result: CompareResult, planned: int, width: int, height: int, glyphs: Glyphs
) -> list[Row]:
    """A chart for each measure, side by side, as many as fit; [] if none does.

    planned: the total number of runs.
    """
    shown = result.findings[: max(1, width // NARROWEST)]
    if not shown or height < LEAST:
        return []
    rows: list[list[Span]] = [[] for _ in range(height)]
    for number, finding in enumerate(shown):
        cells = width * (number + 1) // len(shown) - width * number // len(shown)
        for row, part in zip(
            rows, _chart(result, finding, planned, cells, height, glyphs), strict=True
        ):
            row.extend(part)
    return [tuple(row) for row in rows]


def _chart(
    result: CompareResult,
    finding: PairedRatio,
    planned: int,
    cells: int,
    height: int,
    glyphs: Glyphs,
) -> list[Row]:
    head: list[Ranked] = [
        (0, [(f"{glyphs.hollow} A  ", MUTED), (f"{glyphs.bullet} B", STRONG)]),
        (1, [(f"{INVALID} not counted", MUTED)] if _left_out(result, finding) else []),
    ]
    body = _body(result, finding, planned, cells - 2, height - 2, glyphs)
    foot: list[Span] = [("run", MUTED)]
    return frame(
        body, cells, height, glyphs, title=NAMES[finding.measure], head=head, foot=foot,
        foot_right=[("against the mean of A", MUTED)],
    )  # fmt: skip


def _left_out(result: CompareResult, finding: PairedRatio) -> bool:
    return any(not pair.counts(finding.measure) for pair in result.pairs)


def _body(
    result: CompareResult,
    finding: PairedRatio,
    planned: int,
    width: int,
    height: int,
    glyphs: Glyphs,
) -> list[Row]:
    """The runs on a logarithmic axis around A's mean, and their numbers below."""
    tall, room = height - 1, width - LEFT - 1
    runs = [
        (arm, one, pair.counts(finding.measure))
        for pair in result.pairs
        for arm, one in zip(pair.arms, pair.runs, strict=True)
    ]
    known = [value for _, one, _ in runs if (value := finding.measure.of(one)) is not None]
    values_of_a = [
        value
        for arm, one, _ in runs
        if arm == "A" and (value := finding.measure.of(one)) is not None
    ]
    # Until the first pair counts, the mean is that of all runs of A.
    mean = finding.a or (math.exp(fmean(map(math.log, values_of_a))) if values_of_a else 1.0)
    # Single runs scatter more than the means.
    reach = reach_of([*(value / mean for value in known), finding.ratio or 1.0])
    middle = tall // 2
    step = min(WIDEST, max(1.0, room / max(1, planned, len(runs))))
    first = max(0, len(runs) - int(room / step))  # the newest runs, if not all fit
    canvas: list[list[Span]] = [[(" ", MUTED)] * room for _ in range(tall)]
    canvas[middle] = [(glyphs.rule, FAINT)] * room
    for number, (arm, one, counted) in enumerate(runs[first:]):
        value = finding.measure.of(one)
        if value is None:
            continue
        share = max(-1.0, min(1.0, math.log(value / mean) / math.log1p(reach)))
        y = middle - round(share * (middle if share > 0 else tall - 1 - middle))
        glyph = (glyphs.bullet, STRONG) if arm == "B" else (glyphs.hollow, MUTED)
        canvas[y][int((number + 0.5) * step)] = glyph if counted else (INVALID, MUTED)
    labels = {0: percent_change(1 + reach), middle: "A", tall - 1: percent_change(1 / (1 + reach))}
    rows = [
        fit([(labels.get(y, "").rjust(LEFT - 1) + " ", MUTED), *line], width, MUTED)
        for y, line in enumerate(canvas)
    ]
    return [*rows, _numbers(first, planned, step, room, width)]


def _numbers(first: int, planned: int, step: float, room: int, width: int) -> Row:
    """The numbers of the first run and of each fifth one, below their cells."""
    text = [" "] * room
    free = -1
    for number in range(first + 1, planned + 1):
        words = str(number)
        x = min(int((number - first - 0.5) * step), room - len(words))
        if (number == first + 1 or number % 5 == 0) and x > free:
            text[x : x + len(words)] = words
            free = x + len(words)
    return fit([(" " * LEFT, MUTED), ("".join(text), MUTED)], width, MUTED)
