"""The characters that the screen is drawn with: one set for a good font, one ASCII."""

from __future__ import annotations

from msgspec import Struct


class Glyphs(Struct, frozen=True):
    """A set of drawing characters. braille: charts in braille dots; else in a few ASCII signs."""

    braille: bool
    top_left: str
    top_right: str
    bottom_left: str
    bottom_right: str
    across: str
    down: str
    mark: str  # a moment at which something was changed, through a chart
    rule: str  # a limit, across a chart
    block: str  # of the colour of a state, before its word
    full: str  # bars: filled, half filled ahead of the end, empty
    half: str
    held: str  # taken, and not in use
    empty: str
    divider: str
    bullet: str
    hollow: str
    up: str  # beside a number that is too high
    band: str  # a span that is only background
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
