import sys

from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.widgets.bar import bar, parts_bar
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import (
    NARROW,
    Row,
    changed,
    fit,
    hidden_left,
    join,
    shorten,
    shorten_between,
    sides,
    to_ascii,
    width,
)
from tests.plain_rows import plain

SPANS = st.lists(st.tuples(st.text("ab 雪…", max_size=8), st.sampled_from("xy")), max_size=5)


@given(SPANS, st.integers(0, 30))
def test_a_row_takes_exactly_its_cells(spans: list[tuple[str, str]], cells: int) -> None:
    assert width(fit(spans, cells)) == cells


@given(SPANS, SPANS, st.integers(1, 30))
def test_what_is_said_to_have_changed_is_all_that_changed(
    one: list[tuple[str, str]], two: list[tuple[str, str]], cells: int
) -> None:
    def spread(row: Row) -> list[tuple[str, str]]:
        out = []
        for text, role in row:
            for c in text:
                out += [(c, role)] + [("", role)] * (width([(c, "")]) - 1)
        return out

    before, after = fit(one, cells), fit(two, cells)
    old, new = spread(before), spread(after)
    patched = list(old)
    for start, end in changed(before, after):
        patched[start:end] = new[start:end]
    assert patched == new


def test_equal_rows_have_no_changes_and_far_changes_are_apart() -> None:
    row = fit([("a" * 40, "text")], 40)
    assert changed(row, row) == []
    assert changed(row, (("b" + "a" * 38 + "b", "text"),)) == [(0, 1), (39, 40)]
    assert changed(row, (("baaaab" + "a" * 34, "text"),)) == [(0, 6)]


def test_groups_leave_whole_and_the_least_important_first() -> None:
    groups = [(2, [("p50 180", "a")]), (0, [("p95 412", "b")]), (1, [("n=214", "c")])]
    assert plain([tuple(join(groups, 40))]) == ["p50 180  p95 412  n=214"]
    assert plain([tuple(join(groups, 20))]) == ["p95 412  n=214"]
    assert plain([tuple(join(groups, 8))]) == ["p95 412"]
    assert join(groups, 3) == []


def test_the_right_side_stays_when_there_is_no_room_for_both() -> None:
    assert plain([sides([("left words", "a")], [("right", "b")], 9)]) == ["leftright"]


def test_shortened_text_says_so() -> None:
    assert shorten("max_num_seqs", 8) == "max_num…"
    assert shorten("雪雪雪", 5) == "雪雪…"
    assert shorten("short", 8) == "short"
    assert shorten("x", 0) == ""


@given(st.text("a雪é\u1160…", max_size=60), st.integers(0, 20))
def test_shortened_text_fits_and_is_its_beginning(text: str, cells: int) -> None:
    shown = shorten(text, cells)
    assert width([(shown, "")]) <= cells
    if width([(text, "")]) <= cells and cells:
        assert shown == text
    elif cells:
        assert shown.endswith("…") and text.startswith(shown[:-1].rstrip())
        assert width([(shown, "")]) >= cells - 1  # a wide character may leave a cell free


def test_what_has_words_is_shortened_between_them() -> None:
    text = "load: ramp 4..320 over 75s, hold 320"
    assert shorten_between(text, 35) == "load: ramp 4..320 over 75s, hold…"
    assert shorten_between(text, 33) == "load: ramp 4..320 over 75s, hold…"
    assert shorten_between(text, 32) == "load: ramp 4..320 over 75s,…"
    assert shorten_between(text, 36) == text
    assert shorten_between("a /very/long/path", 9) == "a /very/…"  # else too little would be left


@given(st.text("a 雪é…", max_size=60), st.integers(0, 20))
def test_between_words_or_not_it_fits_and_is_its_beginning(text: str, cells: int) -> None:
    shown = shorten_between(text, cells)
    assert width([(shown, "")]) <= cells
    assert shown in (text, shorten(text, cells)) or text.startswith(shown[:-1])


def test_what_is_far_beyond_the_cells_is_not_measured() -> None:
    def steps(text: str) -> int:
        seen = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(count)
        try:
            shorten(text, 76)
        finally:
            sys.setprofile(None)
        return seen

    steps("雪" * 200)  # what is looked up once
    assert steps("雪é" * 100_000) <= 2 * steps("雪é" * 100)


@given(st.text("a雪", max_size=40), st.integers(1, 20))
def test_the_end_of_a_line_is_seen_with_as_little_left_out_as_can_be(text: str, cells: int) -> None:
    at = hidden_left(text, cells)
    assert width([(text[at:], "")]) <= cells
    assert at == 0 or width([(text[at - 1 :], "")]) > cells


def test_a_box_is_closed_at_any_size() -> None:
    for cells in (6, 20, 58):
        for height in (2, 5):
            rows = frame(
                [(("body " * 20, "text"),)],
                cells,
                height,
                UNICODE,
                title="a long title",
                head=[(0, [("number 12", "text")])],
                foot=[("120s", "muted")],
                foot_right=[("words of a mark", "mark")],
            )
            lines = plain(rows)
            assert len(lines) == height
            assert [width(row) for row in rows] == [cells] * height
            assert lines[0][0] + lines[0][-1] + lines[-1][0] + lines[-1][-1] == "╭╮╰╯"


def test_bars() -> None:
    def text(spans: list[tuple[str, str]]) -> str:
        return "".join(t for t, _ in spans)

    assert text(bar(0.5, 4, "kv", ASCII)) == "##.."
    assert text(bar(0.001, 4, "kv", ASCII)) == "=..."
    assert text(bar(None, 4, "kv", ASCII)) == "...."
    assert text(bar(7.0, 4, "kv", ASCII)) == "####"
    assert parts_bar([(6, "a"), (0.1, "b"), (1, "c")], 10, 10, ASCII) == [
        ("######", "a"),
        ("#", "b"),
        ("#", "c"),
        ("..", "faint"),
    ]
    assert text(parts_bar([], 0, 3, ASCII)) == "..."


def test_ascii_rows_keep_their_width() -> None:
    row = (("64 → 256 · 雪…", "text"),)
    assert plain([to_ascii(row)]) == ["64 > 256 - ??~"]
    assert width(to_ascii(row)) == width(row)


def test_what_counts_as_narrow_is_one_cell_wide() -> None:
    drawn = [chr(code) for code in range(0x3000) if NARROW.fullmatch(chr(code))]
    assert len(drawn) > 500
    assert {width([(character, "text")]) for character in drawn} == {1}
    assert not NARROW.fullmatch("界") and not NARROW.fullmatch("e\u0301")
