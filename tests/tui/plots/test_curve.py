"""The throughput-latency curve as plain text: where points, bracket, limit and ghosts fall."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.search import Answer, End
from llmtop.operations.curves import KEPT, Curve, CurveArchive, CurvePoint
from llmtop.tui.plots.curve import curve_rows
from llmtop.tui.plots.curve_axes import LEFT, RIGHT, Drawing, axes
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import Row, to_ascii
from llmtop.values import replace
from tests.plain_rows import plain

WIDTH, HEIGHT = 78, 20
CELLS = WIDTH - LEFT - RIGHT
KNEE = Knee(level=32, low=16, high=64, best=6000.0, best_level=64)
HOLDS = Answer(0.95, End.FOUND, 32, 64)


def curve(*points: tuple[int, float, float], time: float = 0.0) -> Curve:
    made = tuple(CurvePoint(level, tokens, 0.01, ttft, True) for level, tokens, ttft in points)
    return Curve(time, "sim", "m", made)


NOW = curve((4, 1000, 0.02), (8, 2000, 0.03), (16, 4000, 0.05), (32, 5800, 0.2), (64, 6000, 0.9))
BEFORE = curve((4, 500, 0.04), (64, 3000, 3.0))
DRAWING = Drawing(NOW, (), KNEE, HOLDS, 0.5, None, 64)


def drawn(drawing: Drawing) -> list[str]:
    return plain(curve_rows(drawing, WIDTH, HEIGHT, UNICODE))


def cells_of(rows: list[Row], glyph: str, role: str) -> list[tuple[int, int]]:
    found = []
    for y, row in enumerate(rows):
        x = 0
        for text, own in row:
            found += [(x + i, y) for i, char in enumerate(text) if char == glyph and own == role]
            x += len(text)
    return sorted(found)


def test_every_row_has_the_width_and_the_bounds_are_said() -> None:
    rows = drawn(DRAWING)
    assert len(rows) == HEIGHT and {len(row) for row in rows} == {WIDTH}
    assert rows[0].startswith("   8k ") and rows[0].rstrip().endswith("1s")
    assert rows[HEIGHT - 4].startswith("    0 ") and rows[HEIGHT - 4].rstrip().endswith("10ms")


def test_points_stand_above_their_levels_and_as_high_as_their_tokens() -> None:
    rows = curve_rows(DRAWING, WIDTH, HEIGHT, UNICODE)
    points = cells_of(rows[: HEIGHT - 3], UNICODE.bullet, "tokens")
    ticks = plain(rows)[HEIGHT - 3]
    for (x, _), level in zip(points, ("4", "8", "16", "32", "64"), strict=True):
        assert abs(ticks.index(f" {level} ") + 1 - x) <= 1
    gaps = {b[0] - a[0] for a, b in pairwise(points)}
    assert max(gaps) - min(gaps) <= 1  # doublings are equally far apart
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)
    assert heights[4] == round((HEIGHT - 4) * (1 - 6000 / 8000))


def test_the_limit_lies_where_the_right_axis_says() -> None:
    at = axes(DRAWING, CELLS)
    assert (at.fast, at.slow) == (0.01, 1.0)
    rows = drawn(DRAWING)
    (y,) = [i for i, row in enumerate(rows) if "TTFT 500ms" in row]
    share = math.log(0.5 / 0.01) / math.log(100)
    assert abs(y - (1 - share) * (HEIGHT - 4)) <= 1
    assert UNICODE.rule * 5 in rows[y]
    assert "TTFT" not in "".join(drawn(replace(DRAWING, limit=None)))


def test_the_knee_is_a_bracket_from_the_last_level_below_to_the_first_above() -> None:
    rows = curve_rows(DRAWING, WIDTH, HEIGHT, UNICODE)
    text = plain(rows)[HEIGHT - 2]
    at = axes(DRAWING, CELLS)
    assert text.index(UNICODE.left_end) == LEFT + at.cell(16)
    assert text.index(UNICODE.bullet) == LEFT + at.cell(32)
    assert text.index(UNICODE.right_end) == LEFT + at.cell(64)
    assert "32 (16..64)" in text
    assert "32 (32..64) for 95%" in plain(rows)[HEIGHT - 1]


def test_a_curve_that_still_rises_has_no_knee_yet() -> None:
    rows = drawn(replace(DRAWING, knee=replace(KNEE, open_end=True, high=None)))
    assert "not yet: still rises at 64" in rows[HEIGHT - 2]
    assert "knee --" in drawn(replace(DRAWING, knee=None))[HEIGHT - 2]
    assert "SLO --" in drawn(replace(DRAWING, holds=None))[HEIGHT - 1]
    never = Answer(0.95, End.NEVER, None, 4)
    assert "not at 4" in drawn(replace(DRAWING, holds=never))[HEIGHT - 1]


def test_ghosts_are_pale_and_behind_and_the_axes_hold_them_too() -> None:
    ghosted = replace(DRAWING, ghosts=(BEFORE,))
    assert axes(ghosted, CELLS).slow == 5.0
    pale = {role for row in curve_rows(ghosted, WIDTH, HEIGHT, UNICODE)[:4] for _, role in row}
    assert "faint" in pale and "faint" not in {
        role for row in curve_rows(DRAWING, WIDTH, HEIGHT, UNICODE)[: HEIGHT - 3] for _, role in row
    }
    same = len(cells_of(curve_rows(ghosted, WIDTH, HEIGHT, UNICODE), UNICODE.bullet, "tokens"))
    assert same == 6  # five levels and the knee: a ghost has no points


def test_a_level_that_the_client_spoilt_is_marked_and_not_joined() -> None:
    spoilt = replace(NOW, points=(*NOW.points, CurvePoint(128, 2500, None, 2.0, False)))
    rows = curve_rows(replace(DRAWING, curve=spoilt, top=128), WIDTH, HEIGHT, UNICODE)
    ((x, _),) = cells_of(rows, "x", "muted")
    last = max(x for x, _ in cells_of(rows, UNICODE.bullet, "tokens") if x < LEFT + CELLS)
    assert last < x
    between = [row[last + 2 : x - 1] for row in plain(rows)[: HEIGHT - 3]]
    assert not any(char > "⠀" and char <= "⣿" for row in between for char in row)


def test_error_bars_are_two_standard_errors_long() -> None:
    sharp = curve((8, 4000, 0.1))
    wide = replace(sharp, points=(replace(sharp.points[0], error=0.2),))

    def dots(one: Curve) -> int:
        rows = curve_rows(Drawing(one), WIDTH, 30, UNICODE)[:27]
        return sum("⠀" < c <= "⣿" for row in rows for text, role in row for c in text)

    assert dots(wide) >= dots(sharp) + 8


def test_the_level_under_way_is_shown() -> None:
    rows = curve_rows(replace(DRAWING, level=48), WIDTH, HEIGHT, UNICODE)
    assert cells_of(rows, UNICODE.mark, "now")
    assert ("48", "now") in rows[HEIGHT - 3]


def test_the_axes_hold_still_while_levels_come_within_them() -> None:
    three, four = (axes(replace(DRAWING, curve=curve(*points)), CELLS) for points in (
        [(4, 1000, 0.02), (8, 2000, 0.03), (16, 4000, 0.05)],
        [(4, 1000, 0.02), (8, 2000, 0.03), (16, 4000, 0.05), (32, 4100, 0.06)],
    ))  # fmt: skip
    assert (three.first, three.last, three.fast) == (four.first, four.last, four.fast)


def test_before_the_first_level_the_chart_says_what_will_come() -> None:
    assert "the curve appears as levels finish" in "".join(drawn(Drawing()))


def test_ascii_is_ascii() -> None:
    rows = curve_rows(replace(DRAWING, ghosts=(BEFORE,)), WIDTH, HEIGHT, ASCII)
    text = "".join(plain(to_ascii(row) for row in rows))
    assert text.isascii() and "?" not in text


@pytest.mark.parametrize(("width", "height"), [(20, 20), (78, 3), (58, 6), (24, 9)])
def test_any_size_is_survived(width: int, height: int) -> None:
    rows = curve_rows(replace(DRAWING, ghosts=(BEFORE,)), width, height, UNICODE)
    assert len(rows) in (0, height) and {len(row) for row in plain(rows)} <= {width}


def test_what_differs_from_an_earlier_curve_is_told() -> None:
    other = replace(NOW, options=(("max_num_seqs", 64),), prompt="512", output="128")
    assert other.differs(NOW) == "max_num_seqs 64, 512+128 tokens"
    assert NOW.differs(replace(NOW, options=(("max_num_seqs", 64),))) == "max_num_seqs as launched"
    assert NOW.differs(NOW) == ""


def test_the_shelf_keeps_the_newest_and_survives_what_is_not_a_curve(tmp_path: Path) -> None:
    shelf = CurveArchive(tmp_path / "curves")
    assert shelf.earlier("sim", "m") == ()
    for number in range(KEPT + 2):
        shelf.keep(replace(NOW, time=100.0 + number))
    kept = shelf.earlier("sim", "m")
    assert [one.time for one in kept] == [102.0 + number for number in range(KEPT)]
    assert kept[0].points == NOW.points and shelf.earlier("sim", "other") == ()
    newest = sorted(tmp_path.glob("curves/*/*.json"))[-1]
    whole = newest.read_bytes()
    for broken in (
        b"not json",
        b"\xff",
        whole.replace(b'"schema": 1', b'"schema": 9'),
        whole.replace(b'"level": 4', b'"level": -4'),
        whole.replace(b'"kind": "sim"', b'"kind": "vllm"'),
        whole[:50],
    ):
        assert broken != whole
        newest.write_bytes(broken)
        assert len(shelf.earlier("sim", "m")) == KEPT - 1
