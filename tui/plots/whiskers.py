"""A comparison as a table: each measure's ratio B / A as a whisker on its noise band. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llmtop.loadgen.experiments.comparison import CompareResult, PairResult
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.paired_test import Direction, Measure, PairedRatio, Verdict
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, Span, fit, shorten
from llmtop.wording import format as f
from llmtop.wording.findings import NAMES, percent_change, verdict

# An axis of reach r goes from 1 / (1 + r) to 1 + r. Values beyond it are drawn at its edge: on a
# longer axis, small changes and the noise would not be visible.
REACHES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BEYOND = ("<", ">")
NAME, VALUE, CHANGE = 14, 9, 9  # cells of the columns
ROLES = {Verdict.BETTER: "good", Verdict.WORSE: "bad", Verdict.CANNOT_TELL: "warn"}
ORDER, REQUESTS = 13, 11  # cells of the number and order of a pair, and of its requests
PAIR, MOST_SPREAD = (11, 7, 8), 6  # cells of A, B and B / A, and the extra ones of A, at most
LEAST_REASON = 14  # cells of a pair's "not counted", at least
LEAST_AXIS, LEAST_VERDICT = 15, 17  # cells of the axis and of the verdict, at least
ROOMY = 3  # rows of a measure, at most; from two on, they show its pairs


def comparison_rows(result: CompareResult, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A header, a row for each measure, and the axis. With room, also the pairs of a measure."""
    cells, words = _widths(width)
    reach = axis_reach(result.findings)
    each = max(1, min(ROOMY, (height - 2) // max(1, len(result.findings))))
    rows = [_head(width)]
    for finding in result.findings:
        rows.append(_line(finding, reach, cells, words, width, glyphs))
        if each >= 2:
            rows.append(_dots(finding, result.pairs, reach, cells, words, width, glyphs))
        rows += [fit((), width)] * (each - 2)
    rows.append(_axis(reach, cells, width, glyphs))
    return rows[:height]


def axis_reach(findings: Sequence[PairedRatio]) -> float:
    """The reach of an axis for all intervals, ratios and noise bands."""
    return reach_of(
        value
        for finding in findings
        for value in (finding.low, finding.high, finding.ratio, finding.noise)
        if value is not None
    )


def reach_of(ratios: Iterable[float]) -> float:
    """The reach of an axis for ``ratios``: one of ``REACHES``.

    It is 1.0, for ratios from 0.5 to 2, if none of them is large enough.
    """
    logs = (abs(math.log(ratio)) for ratio in ratios if ratio > 0)
    wanted = math.expm1(max(logs, default=0.0))
    return next((reach for reach in REACHES if reach >= wanted), REACHES[-1])


def whisker(finding: PairedRatio, reach: float, cells: int, glyphs: Glyphs) -> list[Span]:
    """The interval of B / A on a logarithmic axis of ``cells`` cells, 1 in the middle."""
    if not cells:
        return []
    line: list[Span] = [(" ", TEXT)] * cells
    middle = cells // 2
    if finding.noise is not None:
        low, high = _cell(1 / finding.noise, reach, cells), _cell(finding.noise, reach, cells)
        for x in range(low, high + 1):
            line[x] = (glyphs.band, FAINT)
    line[middle] = (glyphs.divider, MUTED)
    role = ROLES[finding.verdict]
    if finding.low is not None and finding.high is not None:
        low, high = (_cell(value, reach, cells) for value in (finding.low, finding.high))
        for x in range(low, high + 1):
            line[x] = (glyphs.full, role)
        # An end that lies beyond the axis has no bracket.
        if finding.low >= 1 / (1 + reach):
            line[low] = (glyphs.left_end, role)
        if finding.high <= 1 + reach:
            line[high] = (glyphs.right_end, role)
    if finding.ratio is not None:
        inside = 1 / (1 + reach) <= finding.ratio <= 1 + reach
        glyph = glyphs.bullet if inside else BEYOND[finding.ratio > 1]
        line[_cell(finding.ratio, reach, cells)] = (glyph, role)
    return line


def pair_rows(result: CompareResult, width: int, height: int) -> list[Row]:
    """A row for each pair of runs, the newest first, with as many measures as fit."""
    reasons = [_uncounted(pair) for pair in result.pairs if not pair.counted]
    room = width - ORDER - REQUESTS
    shown = list(Measure)[: max(1, (room - (LEAST_REASON if reasons else 1)) // sum(PAIR))]
    # The cells of the longest reason, in full if that fits beside the columns, else shortened.
    widths = [max((len(words[i]) + 2 for words in reasons), default=1) for i in (0, 1)]
    left = next((room - cells for cells in widths if room - cells >= len(shown) * sum(PAIR)), 0)
    spread = max(0, min(MOST_SPREAD, left // len(shown) - sum(PAIR)))
    head = f"{'pair':>6}  {'order':<{ORDER - 8}}"
    first, second, third = PAIR
    for measure in shown:
        name = NAMES[measure].removeprefix("output ")
        head += f"{name + ' A':>{first + spread}}{'B':>{second}}{'B / A':>{third}}"
    rows: list[Row] = [fit([(head + f"{'requests':>{REQUESTS}}", MUTED)], width, MUTED)]
    numbered = list(enumerate(result.pairs, 1))
    for number, pair in list(reversed(numbered))[: max(0, height - 1)]:
        rows.append(_pair(number, pair, shown, spread, width))
    if not result.pairs and height > 1:
        rows.append(fit([("  no pair has been run yet", MUTED)], width))
    return rows


def _pair(number: int, pair: PairResult, shown: list[Measure], spread: int, width: int) -> Row:
    first, second = pair.runs if pair.arms != ("B", "A") else reversed(pair.runs)
    order = "noise" if pair.noise else "".join(pair.arms)
    spans: list[Span] = [
        (f"{number:>6}  ", MUTED),
        (f"{order:<{ORDER - 8}}", MUTED if pair.noise else STRONG),
    ]
    for measure in shown:
        a, b = (_value(measure, run) for run in (first, second))
        spans += [
            (
                a.rjust(PAIR[0] + spread) + b.rjust(PAIR[1]),
                TEXT if pair.counts(measure) else FAINT,
            ),
            (_change(pair, measure).rjust(PAIR[2]), MUTED),
        ]
    spans.append((f"{first.ok:,} {second.ok:,}".rjust(REQUESTS), MUTED))
    if not pair.counted:
        room = width - sum(len(text) for text, _ in spans) - 2
        words = next((one for one in _uncounted(pair) if len(one) <= room), "x")
        spans.append((f"  {shorten(words, room)}", MUTED))
    return fit(spans, width)


def _uncounted(pair: PairResult) -> list[str]:
    """Why a pair does not count, in several lengths, the longest first."""
    why = f.clean(pair.client_bound, 100) or "nothing to compare"
    return [f"not counted: {why}", f"not counted: {why.partition(',')[0]}", "not counted"]


def _value(measure: Measure, run: LevelResult) -> str:
    value = measure.of(run)
    return f.rate(value) if measure.direction is Direction.HIGHER else f.latency(value)


def _change(pair: PairResult, measure: Measure) -> str:
    values = pair.values(measure)
    return percent_change(values[1] / values[0]) if values is not None else f.ABSENT


def _widths(width: int) -> tuple[int, int]:
    """Cells of the whisker and of the verdict, which has priority. The first is odd, or zero."""
    left = width - NAME - 2 * VALUE - CHANGE - 2
    if left < LEAST_AXIS + LEAST_VERDICT:
        return 0, left
    words = max(LEAST_VERDICT, min(48, left * 12 // 25))
    cells = max(LEAST_AXIS, min(81, left - words))
    return cells - 1 + cells % 2, max(0, left - cells)


def _head(width: int) -> Row:
    text = f"{'':{NAME}}{'A':>{VALUE}}{'B':>{VALUE}}{'B / A':>{CHANGE}}"
    return fit([(text, MUTED)], width, MUTED)


def _line(
    finding: PairedRatio, reach: float, cells: int, words: int, width: int, glyphs: Glyphs
) -> Row:
    tokens = finding.measure.direction is Direction.HIGHER
    a, b = (f.rate(v) if tokens else f.latency(v) for v in (finding.a, finding.b))
    text = verdict(finding) if finding.ratio is not None else "no pair"
    if len(text) + 3 > words:
        text = _short_verdict(finding)
    role = ROLES[finding.verdict] if finding.ratio is not None else MUTED
    return fit(
        [
            (f" {NAMES[finding.measure]}".ljust(NAME), STRONG),
            (a.rjust(VALUE), TEXT),
            (b.rjust(VALUE), TEXT),
            (percent_change(finding.ratio).rjust(CHANGE), role),
            ("  ", TEXT),
            *whisker(finding, reach, cells, glyphs),
            (f" {shorten(text, words - 1)}", role),
        ],
        width,
    )


def _short_verdict(finding: PairedRatio) -> str:
    """The verdict in one or two words. +k: this many more pairs are needed."""
    if finding.ratio is None:
        return f.ABSENT
    if finding.verdict is not Verdict.CANNOT_TELL:
        return finding.verdict.value
    more = f" +{finding.more_pairs}" if finding.more_pairs is not None else ""
    return f"cannot tell{more}"


def _dots(
    finding: PairedRatio,
    pairs: Sequence[PairResult],
    reach: float,
    cells: int,
    words: int,
    width: int,
    glyphs: Glyphs,
) -> Row:
    """The interval and the noise in figures, and a dot on the axis for each pair."""
    line: list[Span] = [(" ", TEXT)] * cells
    if cells:
        line[cells // 2] = (glyphs.divider, FAINT)
    n = 0
    for pair in pairs:
        counts = pair.counts(finding.measure) and not pair.noise
        values = pair.values(finding.measure) if counts else None
        if values is not None:
            n += 1
        if values is not None and cells:
            line[_cell(values[1] / values[0], reach, cells)] = (glyphs.dot, STRONG)
    between = ""
    if finding.low is not None and finding.high is not None:
        between = f"{percent_change(finding.low)} .. {percent_change(finding.high)}"
    left = f" n={n}".ljust(NAME) + between.rjust(2 * VALUE + CHANGE) + "  "
    noise = "" if finding.noise is None else percent_change(finding.noise).lstrip("+")
    right = f" A against A: {noise}"
    right = "" if not noise else right if len(right) < words else f" noise {noise}"
    return fit([(left, MUTED), *line, (right, MUTED)], width, MUTED)


def _axis(reach: float, cells: int, width: int, glyphs: Glyphs) -> Row:
    if not cells:
        return fit((), width)
    low, high = percent_change(1 / (1 + reach)), percent_change(1 + reach)
    text = low.ljust(cells // 2) + "0%" + high.rjust(cells - cells // 2 - 2)
    left = f" {glyphs.band} A against A".ljust(NAME + 2 * VALUE + CHANGE + 2)
    return fit([(left, MUTED), (text, MUTED)], width, MUTED)


def _cell(ratio: float, reach: float, cells: int) -> int:
    share = math.log(ratio) / math.log1p(reach)
    middle = cells // 2
    return middle + round(max(-1.0, min(1.0, share)) * middle)
