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

_STYLES: WeakKeyDictionary[App[Any], dict[tuple[str, str], Style]] = WeakKeyDictionary()


class Canvas(Widget):
    """Shows the rows that ``put`` gets. Only changed cells are sent to the terminal.

    Measured: 3.6 KB per redraw. ``Static.update`` repaints its whole region on each change: 9.1 KB.
    """

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._source_rows: list[Row] = []  # as ``put`` got them
        self._rows: list[Row] = []
        self._strips: list[Strip] = []
        self._fitted = (0, True, 0)  # width, braille, height of the rows
        self._role_styles: dict[str, Style] = {}
        # Gets the changed cells. None: Textual refreshes them, which wakes the widget, its screen
        # and a timer one after the other.
        self.mark: Callable[[Canvas, Sequence[Region]], None] | None = None

    @property
    def rows(self) -> list[Row]:
        """The rows that are shown now."""
        return self._rows

    def put(self, rows: Sequence[Row], glyphs: Glyphs) -> None:
        """Show ``rows``. Only the cells that differ from those shown now are refreshed."""
        width, height = self.outer_size  # as ``size`` without a border, but cheaper
        wanted = list(rows[:height])
        wanted.extend([()] * (height - len(wanted)))
        known = self._source_rows
        if (width, glyphs.braille, height) != self._fitted:
            self._fitted = (width, glyphs.braille, height)
            self._source_rows = wanted
            self._rows = [_fitting(row, width, glyphs) for row in wanted]
            self._strips = [self._strip(row) for row in self._rows]
            self.refresh()
            return
        if wanted == known:
            return
        regions: list[Region] = []
        for y, row in enumerate(wanted):
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
        """Textual's line API. Strips are made when rows change, not when lines are requested."""
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.outer_size.width, self._style_of(TEXT))

    def render_lines(self, crop: Region) -> list[Strip]:
        """The strips of the region ``crop``.

        A canvas has no border, padding or opacity. So Textual's work and cache for these are
        skipped.
        """
        width = self.outer_size.width
        strips = [self.render_line(y) for y in crop.line_range]
        if width != self._fitted[0]:  # resized, and not drawn at the new size yet
            strips = [strip.adjust_cell_length(width, self._style_of(TEXT)) for strip in strips]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def notify_style_update(self) -> None:
        """The theme changed: draw the same rows in the new colours."""
        super().notify_style_update()
        self._role_styles.clear()
        if self._rows:
            self._strips = [self._strip(row) for row in self._rows]
            self.refresh()

    def _strip(self, row: Row) -> Strip:
        styles = self._role_styles
        segments = []
        for text, role in row:
            # Panels clean the text of engines. This is the second check, for all of them.
            text = masked(text)
            style = styles.get(role)
            if style is None:
                style = styles[role] = self._style_of(role)
            segments.append(Segment(text, style))
        return Strip(segments, self._fitted[0])

    def _style_of(self, role: str) -> Style:
        """The style of a role from the stylesheet; the same for all canvases.

        With component classes, Textual would compute each style for every widget, twice before the
        first paint: 1,200 matches, 0.2 s.
        """
        app = self.app
        known = _STYLES.setdefault(app, {})
        style = known.get((app.theme, role))
        if style is None:
            cell = [Segment(" ", style_of(self, f"canvas--{role}"))]
            # The filters map colours for terminals with fewer or no colours: once per role.
            for filter in self.get_line_filters():
                cell = filter.apply(cell, self.background_colors[1])
            style = known[app.theme, role] = cell[0].style or Style.null()
        return style


def _fitting(row: Row, width: int, glyphs: Glyphs) -> Row:
    return fit(row if glyphs.braille else to_ascii(row), width)
