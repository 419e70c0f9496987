"""A comparison as a table: each measure's ratio as a whisker around 1, before its noise. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmtop.loadgen.compare import Direction, Finding, Measure, Verdict
from llmtop.loadgen.duel import CompareResult, PairResult
from llmtop.tui import format as f
from llmtop.tui.findings import NAMES, percent_change, verdict
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, Span, fit, shorten

# Of the axis: 1 + that, and 1 / that. What lies further is at its edge: a longer axis would flatten
# what is small, and noise is.
REACHES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BEYOND = ("<", ">")
NAME, VALUE, CHANGE = 14, 9, 9  # cells of the columns
WORDS = {Verdict.BETTER: "good", Verdict.WORSE: "bad", Verdict.CANNOT_TELL: "warn"}
LEAST, WORD = 15, 17  # cells of a whisker's axis, and those of the verdict
ROOMY = 3  # rows a measure from which each pair is shown, too


def comparison_rows(result: CompareResult, width: int, height: int, glyphs: Glyphs) -> list[Row]:
    """Head, a row a measure, and the axis; where there is room, each pair below its measure."""
    cells, words = _widths(width)
    reach = axis_reach(result.findings)
    each = max(1, min(ROOMY, (height - 2) // max(1, len(result.findings))))
    rows = [_head(width)]
    for finding in result.findings:
        rows.append(_line(finding, reach, cells, words, width, glyphs))
        if each >= 2:
            rows.append(_dots(finding.measure, result.pairs, reach, cells, width, glyphs))
        rows += [fit((), width)] * (each - 2)
    rows.append(_axis(reach, cells, width, glyphs))
    return rows[:height]


def axis_reach(findings: Sequence[Finding]) -> float:
    """How far from 1 the axis goes: the same factor up and down, one of a few round ones.

    At most twice and half.
    """
    logs = [
        abs(math.log(value))
        for finding in findings
        for value in (finding.low, finding.high, finding.ratio, finding.noise)
        if value is not None and value > 0
    ]
    wanted = math.expm1(max(logs, default=0.0))
    return next((reach for reach in REACHES if reach >= wanted), REACHES[-1])


def whisker(finding: Finding, reach: float, cells: int, glyphs: Glyphs) -> list[Span]:
    """The interval of B / A on a logarithmic axis of ``cells`` cells, 1 in the middle."""
    line: list[Span] = [(" ", TEXT)] * cells
    middle = cells // 2
    if finding.noise is not None:
        low, high = _cell(1 / finding.noise, reach, cells), _cell(finding.noise, reach, cells)
        for x in range(low, high + 1):
            line[x] = (glyphs.band, FAINT)
    line[middle] = (glyphs.divider, MUTED)
    role = WORDS[finding.verdict]
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
    """Each pair of runs, the newest on top."""
    head = f"{'pair':>6}  {'order':<7}{'tok/s A B':>15}{'':>9}{'TTFT p50 A B':>16}{'':>9}"
    head += f"{'requests':>12}"
    rows: list[Row] = [fit([(head, MUTED)], width, MUTED)]
    numbered = list(enumerate(result.pairs, 1))
    for number, pair in list(reversed(numbered))[: max(0, height - 1)]:
        rows.append(_pair(number, pair, width))
    if not result.pairs and height > 1:
        rows.append(fit([("  no pair has been run yet", MUTED)], width))
    return rows


def _pair(number: int, pair: PairResult, width: int) -> Row:
    first, second = pair.runs if pair.arms != ("B", "A") else reversed(pair.runs)
    rates = f"{f.rate(first.output_tokens_per_s)} {f.rate(second.output_tokens_per_s)}"
    waits = f"{f.latency(first.ttft.p50)} {f.latency(second.ttft.p50)}"
    requests = f"{first.ok:,} {second.ok:,}"
    spans: list[Span] = [
        (f"{number:>6}  ", MUTED),
        ("noise  " if pair.noise else f"{''.join(pair.arms):<7}", MUTED if pair.noise else STRONG),
        (f"{rates:>15}", TEXT),
        (f"{_change(pair, Measure.OUTPUT_TOKENS):>9}", MUTED),
        (f"{waits:>16}", TEXT),
        (f"{_change(pair, Measure.TTFT_P50):>9}", MUTED),
        (f"{requests:>12}", MUTED),
    ]
    if not pair.counted:
        why = f.clean(pair.client_bound, 100) or "nothing ended well"
        room = width - 76
        spans.append((f"  {shorten(f'not counted: {why}', room)}" if room > 8 else " x", "warn"))
    return fit(spans, width)


def _change(pair: PairResult, measure: Measure) -> str:
    values = pair.values(measure)
    return percent_change(values[1] / values[0]) if values is not None else f.ABSENT


def _widths(width: int) -> tuple[int, int]:
    """Cells of the whisker (odd: 1 lies in the middle) and of the verdict."""
    left = width - NAME - 2 * VALUE - CHANGE - 2
    words = max(WORD, min(48, left * 12 // 25))
    cells = max(LEAST, min(81, left - words))
    return cells - 1 + cells % 2, max(0, left - cells)


def _head(width: int) -> Row:
    text = f"{'':{NAME}}{'A':>{VALUE}}{'B':>{VALUE}}{'B / A':>{CHANGE}}"
    return fit([(text, MUTED)], width, MUTED)


def _line(
    finding: Finding, reach: float, cells: int, words: int, width: int, glyphs: Glyphs
) -> Row:
    tokens = finding.measure.direction is Direction.HIGHER
    a, b = (f.rate(v) if tokens else f.latency(v) for v in (finding.a, finding.b))
    told = verdict(finding) if finding.ratio is not None else "no pair"
    if len(told) + 3 > words:
        told = _briefly(finding)
    role = WORDS[finding.verdict] if finding.ratio is not None else MUTED
    return fit(
        [
            (f" {NAMES[finding.measure]}".ljust(NAME), STRONG),
            (a.rjust(VALUE), TEXT),
            (b.rjust(VALUE), TEXT),
            (percent_change(finding.ratio).rjust(CHANGE), role),
            ("  ", TEXT),
            *whisker(finding, reach, cells, glyphs),
            (f" {shorten(told, words - 1)}", role),
        ],
        width,
    )


def _briefly(finding: Finding) -> str:
    """The verdict where there is room for a word or two; how many more pairs, as +k."""
    if finding.ratio is None:
        return f.ABSENT
    if finding.verdict is not Verdict.CANNOT_TELL:
        return finding.verdict.value
    more = f" +{finding.more_pairs}" if finding.more_pairs is not None else ""
    return f"cannot tell{more}"


def _dots(
    measure: Measure,
    pairs: Sequence[PairResult],
    reach: float,
    cells: int,
    width: int,
    glyphs: Glyphs,
) -> Row:
    """Where each single pair lies: the spread behind the interval."""
    line: list[Span] = [(" ", TEXT)] * cells
    line[cells // 2] = (glyphs.divider, FAINT)
    n = 0
    for pair in pairs:
        values = pair.values(measure) if pair.counted and not pair.noise else None
        if values is not None:
            n += 1
            line[_cell(values[1] / values[0], reach, cells)] = (glyphs.dot, STRONG)
    left = f" n={n}".ljust(NAME + 2 * VALUE + CHANGE + 2)
    return fit([(left, MUTED), *line], width, MUTED)


def _axis(reach: float, cells: int, width: int, glyphs: Glyphs) -> Row:
    low, high = percent_change(1 / (1 + reach)), percent_change(1 + reach)
    text = low.ljust(cells // 2) + "1" + high.rjust(cells - cells // 2 - 1)
    left = f" {glyphs.band} A against A".ljust(NAME + 2 * VALUE + CHANGE + 2)
    return fit([(left, MUTED), (text, MUTED)], width, MUTED)


def _cell(ratio: float, reach: float, cells: int) -> int:
    share = math.log(ratio) / math.log1p(reach)
    middle = cells // 2
    return middle + round(max(-1.0, min(1.0, share)) * middle)
