"""Draws charts as SVG with pygal. The style sheet of the page colours them.

pygal draws with placeholder colours. Each is replaced by a CSS variable, so that one drawing works
on a light and on a dark page.
"""

from __future__ import annotations

import sys
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, tostring

from llmtop.report.document import Chart, Series

if TYPE_CHECKING:
    from pygal.style import Style  # type: ignore[import-untyped]

WIDTH, HEIGHT = 860, 400
LEGEND_COLUMNS, LEGEND_FONT, MARGIN = 3, 13, 12
# A line of more than FEW points gets small dots. A single point between two gaps stays visible.
DOT, SMALL_DOT, FEW = 3, 1.2, 60
_WITHOUT_DOTS = ("limit", "change")
_DASHES = {"limit": "6, 4", "forecast": "6, 4", "change": "2, 4"}
# Placeholder colours, replaced by CSS variables. Any colours that appear nowhere else would do.
_FOREGROUND, _SUBTLE = "#010203", "#040506"
_ROLES = {
    "main": "#a10001", "rejected": "#a10002", "limit": "#a10003", "forecast": "#a10004",
    "dots": "#a10001", "other": "#a10005", "run0": "#a10001", "run1": "#a10005",
    "run2": "#a10006", "run3": "#a10007", "change": "#a10008",
}  # fmt: skip
_VARIABLES = {
    _FOREGROUND: "var(--ink)", _SUBTLE: "var(--rule)", "#a10001": "var(--main)",
    "#a10002": "var(--rejected)", "#a10003": "var(--limit)", "#a10004": "var(--forecast)",
    "#a10008": "var(--soft)", "#a10005": "var(--other)", "#a10006": "var(--third)",
    "#a10007": "var(--fourth)",
}  # fmt: skip


def svg(chart: Chart, number: int) -> str:
    """The chart as one <svg> element. number: unique on the page, for the id of the element."""
    XY = _library().XY
    shown = [one for one in chart.series if one.points]
    drawing: Any = XY(
        style=_style(tuple(_ROLES.get(one.role, "#a10005") for one in _lines(shown))),
        js=[],
        width=WIDTH,
        height=HEIGHT,
        x_title=chart.x_title[:160],
        y_title=chart.y_title,
        legend_at_bottom=True,
        legend_at_bottom_columns=LEGEND_COLUMNS,
        margin_bottom=_below(_lines(shown)),
        disable_xml_declaration=True,
        allow_interruptions=True,
        truncate_legend=-1,
        no_data_text="no values",
        show_only_major_dots=False,
        include_x_axis=_near_zero(shown),
        xrange=_range(shown),
        margin=MARGIN,
    )
    labels = _x_labels(chart, shown)
    if labels:
        drawing.x_labels = labels
        drawing.x_labels_major = labels
    for one in _lines(shown):
        line = {
            "stroke_style": {"width": 1 if one.role == "change" else 2, **_dashes(one)},
            "show_dots": bool(one.name) and one.role not in _WITHOUT_DOTS,
            "dots_size": DOT if len(one.points) <= FEW else SMALL_DOT,
        }
        if one.role == "dots":
            line["stroke"] = False
        drawing.add(one.name or None, list(one.points), **line)
    return _adapted(_without_scripts(drawing.render_tree()), str(drawing.uuid), chart, number)


@cache
def _library() -> Any:
    """The pygal module, without the import hook that it installs.

    pygal 3.1 appends a finder with a deprecated interface to ``sys.meta_path``, to import its map
    packages. Python would then warn at each later import of this process. The charts need no maps.
    """
    before = list(sys.meta_path)
    import pygal  # type: ignore[import-untyped]

    sys.meta_path[:] = [
        one
        for one in sys.meta_path
        if one in before or not isinstance(one, pygal.PluginImportFixer)
    ]
    return pygal


def _lines(series: list[Series]) -> list[Series]:
    """Each series, followed by its intervals as one unnamed line of vertical strokes."""
    found = []
    for one in series:
        found.append(one)
        if one.spans:
            strokes: list[tuple[float, float | None]] = []
            for x, low, high in one.spans:
                strokes += [(x, low), (x, high), (x, None)]
            role = one.role if one.role != "dots" else "main"
            found.append(Series("", tuple(strokes), role=f"{role}"))
    return found


def _below(lines: list[Series]) -> float:
    """The lower margin that makes room for the legend.

    pygal 3.1 reserves rows for all lines, also for those without a name, and rounds the number of
    rows down. This corrects the difference.
    """
    rows = -(-sum(bool(one.name) for one in lines) // LEGEND_COLUMNS)
    return MARGIN + (rows - len(lines) // LEGEND_COLUMNS) * 1.5 * LEGEND_FONT


def _dashes(one: Series) -> dict[str, str]:
    return {"dasharray": _DASHES[one.role]} if one.role in _DASHES else {}


def _range(series: list[Series]) -> tuple[float, float] | None:
    xs = [x for one in series for x, _ in one.points]
    return (min(xs), max(xs)) if xs and min(xs) < max(xs) else None


def _near_zero(series: list[Series]) -> bool:
    """Whether the y axis begins at 0: where no value is negative."""
    ys = [y for one in series for _, y in one.points if y is not None]
    return bool(ys) and min(ys) >= 0


def _x_labels(chart: Chart, series: list[Series]) -> list[float]:
    if not chart.logarithmic_x:
        return []
    xs = sorted({x for one in series for x, _ in one.points})
    wide = (xs[-1] - xs[0]) / 14 if len(xs) > 1 else 0.0
    kept: list[float] = []
    for x in xs:
        if not kept or x - kept[-1] >= wide:
            kept.append(x)
    return kept


@cache
def _style(colours: tuple[str, ...]) -> Style:
    return _library().style.Style(
        background="transparent",
        plot_background="transparent",
        foreground=_FOREGROUND,
        foreground_strong=_FOREGROUND,
        foreground_subtle=_SUBTLE,
        opacity=".9",
        opacity_hover="1",
        transition="0s",
        colors=colours or ("#a10001",),
        font_family="system-ui, sans-serif",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=LEGEND_FONT,
        title_font_size=13,
    )


def _without_scripts(tree: Element) -> str:
    """The drawing as text, without pygal's settings for a script and without comments."""
    for parent in list(tree.iter()):
        for child in list(parent):
            if callable(child.tag) or str(child.tag).endswith("script"):
                parent.remove(child)
    return tostring(tree, encoding="unicode")


def _adapted(drawn: str, uuid: str, chart: Chart, number: int) -> str:
    """pygal's drawing with our id, our colours, and a description for screen readers."""
    drawn = drawn.replace(f"chart-{uuid}", f"chart-{number}")
    drawn = drawn.replace(uuid, f"c{number}")
    for placeholder, variable in _VARIABLES.items():
        drawn = drawn.replace(placeholder, variable)
    label = escape(f"{chart.title}. {chart.description}")
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
