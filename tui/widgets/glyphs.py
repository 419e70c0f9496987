"""The characters that the screen is drawn with: a Unicode set and an ASCII set."""

from __future__ import annotations

from msgspec import Struct


class Glyphs(Struct, frozen=True):
    """A set of drawing characters. braille: charts use braille dots, else ASCII characters."""

    braille: bool
    top_left: str
    top_right: str
    bottom_left: str
    bottom_right: str
    across: str
    down: str
    mark: str  # vertical line of a chart: the time of a change
    rule: str  # horizontal line of a chart: a limit
    block: str  # before the word of a state, in its colour
    full: str  # of a bar, as are half, held and empty
    half: str
    held: str  # reserved, and not in use
    empty: str
    divider: str
    bullet: str
    hollow: str
    up: str  # before a number that is too high, and before a warning
    band: str  # the background of an interval
    left_end: str  # of an interval, and its right end
    right_end: str
    cursor: str
    arrow: str
    dot: str


UNICODE = Glyphs(
    braille=True,
    top_left="╭",
    top_right="╮",
    bottom_left="╰",
    bottom_right="╯",
    across="─",
    down="│",
    mark="╎",
    rule="┄",
    block="▌",
    full="━",
    half="╸",
    held="╍",
    empty="─",
    divider="│",
    bullet="●",
    hollow="○",
    up="▲",
    band="░",
    left_end="├",
    right_end="┤",
    cursor="▸",
    arrow="→",
    dot="·",
)

ASCII = Glyphs(
    braille=False,
    top_left="+",
    top_right="+",
    bottom_left="+",
    bottom_right="+",
    across="-",
    down="|",
    mark="!",
    rule=".",
    block="|",
    full="#",
    half="=",
    held="=",
    empty=".",
    divider="|",
    bullet="*",
    hollow="o",
    up="^",
    band=":",
    left_end="[",
    right_end="]",
    cursor=">",
    arrow="->",
    dot="-",
)
