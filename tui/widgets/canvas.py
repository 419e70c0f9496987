"""A widget of rows that sends to the terminal only the cells that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from llmtop.printable import masked
from llmtop.tui.textual_private.styles import style_of
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import TEXT, Row, changed, fit, to_ascii

_LOOKS: WeakKeyDictionary[App[Any], dict[tuple[str, str], Style]] = WeakKeyDictionary()


class Canvas(Widget):
    """Rows set by ``put``. Only the changed cells of a row cost bytes.

    Measured: ``Static.update`` repaints its whole region on each change, 9.1 KB a beat instead of
    3.6 KB.
    """

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._given: list[Row] = []  # as they came, before they were made to fit
        self._rows: list[Row] = []
        self._strips: list[Strip] = []
        self._fitted = (0, True, 0)  # width, braille or not, height of what is shown
        self._looks: dict[str, Style] = {}
        # Takes the cells that changed; None sends them Textual's way, which wakes the widget, its
        # screen and a timer one after the other.
        self.mark: Callable[[Canvas, Sequence[Region]], None] | None = None

    @property
    def rows(self) -> list[Row]:
        """What is shown now."""
        return self._rows

    def put(self, rows: Sequence[Row], glyphs: Glyphs) -> None:
        """Show ``rows``; refreshes what differs from what is shown now, and nothing else."""
        width, height = self.outer_size  # ``size`` asks the compositor for it; there is no border
        given = list(rows[:height])
        given.extend([()] * (height - len(given)))
        known = self._given
        if (width, glyphs.braille, height) != self._fitted:
            self._fitted = (width, glyphs.braille, height)
            self._given = given
            self._rows = [_fitting(row, width, glyphs) for row in given]
            self._strips = [self._strip(row) for row in self._rows]
            self.refresh()
            return
        if given == known:
            return
        regions: list[Region] = []
        for y, row in enumerate(given):
            if row == known[y]:
                continue
            known[y] = row
            old, new = self._rows[y], _fitting(row, width, glyphs)
            if old == new:
                continue
            regions.extend(Region(x1, y, x2 - x1, 1) for x1, x2 in changed(old, new))
            self._rows[y] = new
            self._strips[y] = self._strip(new)
        if not regions:
            return
        if self.mark is None:
            self.refresh(*regions)
        else:
            self.mark(self, regions)

    def render_line(self, y: int) -> Strip:
        """The line API: strips are made when rows change, not when lines are asked for."""
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.outer_size.width, self._style_of(TEXT))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Cells of what is shown. There is no border, no padding and no opacity, so the work and
        the cache that Textual spends on these are left out."""
        width = self.outer_size.width
        strips = [self.render_line(y) for y in crop.line_range]
        if width != self._fitted[0]:  # it has another size by now, and is not drawn yet
            strips = [strip.adjust_cell_length(width, self._style_of(TEXT)) for strip in strips]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def notify_style_update(self) -> None:
        """The theme changed: the same rows in other colours."""
        super().notify_style_update()
        self._looks.clear()
        if self._rows:
            self._strips = [self._strip(row) for row in self._rows]
            self.refresh()

    def _strip(self, row: Row) -> Strip:
        looks = self._looks
        segments = []
        for text, role in row:
            # Panels clean what engines say; should one forget, a terminal never sees it.
            text = masked(text)
            look = looks.get(role)
            if look is None:
                look = looks[role] = self._style_of(role)
            segments.append(Segment(text, look))
        return Strip(segments, self._fitted[0])

    def _style_of(self, role: str) -> Style:
        """What the stylesheet says of a role, which is the same for all canvases.

        As component classes Textual would work out each of them for every widget, twice before the
        first paint: 1,200 matches, a fifth of a second.
        """
        app = self.app
        known = _LOOKS.setdefault(app, {})
        look = known.get((app.theme, role))
        if look is None:
            cell = [Segment(" ", style_of(self, f"canvas--{role}"))]
            # What becomes of colours without a terminal's own or without any, once for the role.
            for filter in self.get_line_filters():
                cell = filter.apply(cell, self.background_colors[1])
            look = known[app.theme, role] = cell[0].style or Style.null()
        return look


def _fitting(row: Row, width: int, glyphs: Glyphs) -> Row:
    return fit(row if glyphs.braille else to_ascii(row), width)
