"""What is written with the changes of a style alone looks as what is written with all of it."""

from __future__ import annotations

from random import Random

import pyte
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from llmtop.tui.textual_private.style_codes import StyleWriter

COLUMNS = 60
CHOICE = {
    "bold": (True, False, None),
    "italic": (True, None, None),
    "underline": (True, None, None),
    "strike": (True, None, None),
    "reverse": (True, None, None),
    "color": ("#0a141e", "#c8d2dc", "red", "bright_blue", "default", None),
    "bgcolor": ("#0f1318", "green", "color(200)", "default", None),
}


def screen_of(codes: str) -> pyte.Screen:
    screen = pyte.Screen(COLUMNS, 1)
    pyte.Stream(screen).feed(codes)
    return screen


def written(segments: list[Segment], color_system: ColorSystem = ColorSystem.TRUECOLOR) -> str:
    writer = StyleWriter(color_system)
    writer.write(segments)
    return writer.end()


def seen(codes: str) -> list[tuple[object, ...]]:
    """The cells; of a blank only what is visible of it."""
    cells: list[tuple[object, ...]] = []
    row = screen_of(codes).buffer[0]
    for column in range(COLUMNS):
        cell = row[column]
        drawn = cell.data != " " or cell.reverse or cell.underscore or cell.strikethrough
        cells.append(tuple(cell) if drawn else (cell.data, cell.bg))
    return cells


def test_every_cell_looks_the_same_and_costs_less() -> None:
    random = Random(7)
    less = 0
    for color_system in (ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT, ColorSystem.STANDARD):
        for _ in range(30):
            styles = [
                Style(**{name: random.choice(values) for name, values in CHOICE.items()})  # type: ignore[arg-type]
                for _ in range(6)
            ]
            segments = [Segment(random.choice(("ab", "  ", "x ", "─")), style) for style in styles]
            ours = written(segments, color_system)
            whole = "".join(
                Strip.render_style(style, text, color_system)
                for text, style, _ in segments
                if style is not None
            )
            assert seen(ours) == seen(whole)
            less += len(whole) - len(ours)
    assert less > 0


def test_only_the_colour_that_differs_is_written() -> None:
    ground = "on #000000"
    codes = written([Segment("a", Style.parse(f"#010203 {ground}")),
                     Segment("  ", Style.parse(f"#070809 {ground}")),
                     Segment("b", Style.parse(f"#040506 {ground}"))])  # fmt: skip
    assert codes == "\x1b[38;2;1;2;3;48;2;0;0;0ma  \x1b[38;2;4;5;6mb\x1b[0m"


def test_the_terminal_is_plain_behind_a_link_and_behind_all_of_it() -> None:
    link = Style(bold=True, link="https://example.org")
    codes = written([Segment("a", Style(bold=True)), Segment("b", link), Segment("c", None)])
    first, rest = codes.split("\x1b]8;", 1)
    assert first == "\x1b[1ma\x1b[0m" and rest.endswith("\x1b]8;;\x1b\\c")


def test_what_two_attributes_share_is_taken_back_from_one_alone() -> None:
    both = Segment("a", Style(bold=True, dim=True))
    assert written([both, Segment("b", Style(dim=True))]) == "\x1b[1;2ma\x1b[22;2mb\x1b[0m"
