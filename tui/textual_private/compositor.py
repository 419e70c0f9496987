"""Sends only the changed cells to the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import COLOR_SYSTEMS, Console, RenderableType
from textual._compositor import Compositor, CompositorUpdate
from textual._styles_cache import StylesCache
from textual.color import Color
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from llmtop.tui.textual_private.style_codes import StyleWriter


class TightUpdate(CompositorUpdate):
    """A partial update that writes only the dirty cells of a line.

    pieces: (row, column, content), sorted by row and column.
    """

    def __init__(self, pieces: Sequence[tuple[int, int, Strip]]) -> None:
        self._pieces = pieces

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal."""
        out = StyleWriter(COLOR_SYSTEMS[console.color_system or "truecolor"])
        line, column = -1, -1  # where the cursor is
        for y, x, strip in self._pieces:
            if line != y:
                out.move(f"\x1b[{y + 1};{x + 1}H")
            elif column != x:
                out.move(f"\x1b[{x + 1}G")
            out.write(strip)
            line, column = y, x + strip.cell_length
        return out.end()


class TightCompositor(Compositor):
    """Textual's compositor with partial updates of only the dirty cells.

    The compositor of Textual 8.2.8 crops a dirty span only at its right end, so a change in the
    last cell of a chart sends the whole line: 12,126 bytes a second at 120x40 under load, against
    3,124 here. It also renders all lines of every widget within the rectangle around all dirty
    cells. That is the whole screen if the pulse at the top and a chart at the bottom change.

    begun: the canvases have content. Before that nothing is sent: Textual paints a screen with
    empty widgets three times, which takes 24,000 bytes and a twentieth of the start-up time.
    """

    def __init__(self, *, begun: bool = True) -> None:
        super().__init__()
        self.begun = begun

    def mark(self, widget: Widget, cells: Sequence[Region]) -> None:
        """Mark cells of a widget as dirty. cells: regions in the coordinates of the widget."""
        place = self.visible_widgets.get(widget)
        if place is None:
            return
        region, clip = place
        # Region's own methods are not used: they cache 5,000 results, which takes 1.3 MiB.
        for x, y, width, height in cells:
            left, top = max(region.x + x, clip.x), max(region.y + y, clip.y)
            right = min(region.x + x + width, clip.right)
            bottom = min(region.y + y + height, clip.bottom)
            if left < right and top < bottom:
                self._dirty_regions.add(Region(left, top, right - left, bottom - top))

    def render_update(
        self,
        full: bool = False,
        screen_stack: list[Screen[Any]] | None = None,
        simplify: bool = False,
    ) -> RenderableType | None:
        """Textual's update; None before ``begun``."""
        if not self.begun:
            return None
        return super().render_update(full, screen_stack, simplify)

    def render_partial_update(self) -> TightUpdate | None:  # type: ignore[override]
        """The dirty cells, each from the front widget at its place; None if there are none."""
        spans = list(self._regions_to_spans(self._dirty_regions))
        self._dirty_regions.clear()
        if not spans:
            return None
        # Front widgets come first.
        seen = [
            (widget, region, shown)
            for widget, (region, clip) in self.visible_widgets.items()
            if (shown := region.intersection(clip))
        ]
        pieces: list[tuple[int, int, Strip]] = []
        for y, x1, x2 in spans:
            open_spans = [(x1, x2)]  # not covered by a widget yet
            for widget, region, shown in seen:
                if not shown.y <= y < shown.bottom:
                    continue
                still_open: list[tuple[int, int]] = []
                for start, end in open_spans:
                    left, right = max(start, shown.x), min(end, shown.right)
                    if left >= right:
                        still_open.append((start, end))
                        continue
                    line = Region(left - region.x, y - region.y, right - left, 1)
                    pieces += [(y, left, strip) for strip in widget.render_lines(line)]
                    still_open += [(start, left)] if start < left else []
                    still_open += [(right, end)] if right < end else []
                open_spans = still_open
                if not open_spans:
                    break
        pieces.sort(key=lambda piece: piece[:2])
        return TightUpdate(pieces)


class FreedStylesCache(StylesCache):
    """A cache of a widget's lines that is freed with the widget.

    Textual 8.2.8 caches 1,024 results of ``get_inner_outer`` in a global cache, with this object as
    the key. That keeps the lines of each closed screen in memory: 48 strips, 200 KB at 120x40.
    """

    def get_inner_outer(  # type: ignore[override]
        self, base_background: Color, background: Color
    ) -> tuple[Style, Style]:
        """The styles inside and outside a border, without a cache."""
        inner, outer = base_background + background, base_background
        return Style(background=inner), Style(background=outer)


class FreedScreen(Screen[Any]):
    """A screen whose memory is freed when it is closed."""

    def __init__(self, **textual: Any) -> None:
        super().__init__(**textual)
        self._styles_cache = FreedStylesCache()


class TightScreen(FreedScreen):
    """A screen that sends only changed cells. begun: see ``TightCompositor``."""

    def __init__(self, *, begun: bool = True, **textual: Any) -> None:
        super().__init__(**textual)
        self._compositor: TightCompositor = TightCompositor(begun=begun)

    @property
    def compositor(self) -> TightCompositor:
        """The compositor of this screen."""
        return self._compositor

    @property
    def is_seen(self) -> bool:
        """Whether only modal dialogs are on top: a dialog does not cover the whole screen."""
        stack = self.app.screen_stack
        if self not in stack:
            return False
        return all(screen.is_modal for screen in stack[stack.index(self) + 1 :])

    @property
    def paints_at_once(self) -> bool:
        """Whether ``paint_now`` may be used: no layout is due and no batch is open."""
        return self.is_current and not self._layout_required and not self.app._batch_count

    def paint_now(self) -> None:
        """Send the marked cells, and the widgets that Textual has marked as dirty."""
        self._compositor.update_widgets(self._dirty_widgets)
        self._compositor_refresh()
