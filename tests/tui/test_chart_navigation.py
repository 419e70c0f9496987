"""The charts' time: a cursor with exact values, pan, zoom to a day, freeze, one chart large."""

from collections.abc import Callable

from llmtop.analysis.series import SeriesName as S
from llmtop.analysis.thinning import Stretch
from llmtop.tui.app import LlmtopApp
from llmtop.tui.layout.chart_navigation import ChartNavigation
from llmtop.tui.store.series import Series
from llmtop.tui.store.store import Store

NOW = 1_800_000_000.0
Text = Callable[[LlmtopApp], str]


async def test_the_cursor_shows_exact_values_and_the_mark(
    make_app: Callable[..., LlmtopApp], screen_text: Text
) -> None:
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("comma")
        await pilot.pause()
        text = screen_text(app)
        assert "08:00:00 n=" in text or "07:59:58 n=" in text, text.splitlines()[2]
        await pilot.press("F")
        await pilot.pause()
        text = screen_text(app)
        assert "FROZEN 0s" in text.splitlines()[-1] and text.count("FROZEN 0s") >= 5
        await pilot.press("escape")
        await pilot.pause()
        assert "08:00:0" not in screen_text(app) and "FROZEN" not in screen_text(app)


async def test_one_chart_large_and_the_next(
    make_app: Callable[..., LlmtopApp], screen_text: Text
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f")
        await pilot.pause()
        assert "TTFT" in screen_text(app) and "KV cache" not in screen_text(app)
        await pilot.press("f", "f")
        await pilot.pause()
        assert "KV cache" in screen_text(app) and "tokens/s" not in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "options" in screen_text(app)


async def test_a_zoomed_chart_shows_what_was_hours_ago(
    make_app: Callable[..., LlmtopApp], screen_text: Text, store: Store
) -> None:
    series = Series()
    for second in range(0, 4 * 3600):
        series.append(NOW - 4 * 3600 + second, 90.0 if second < 600 else 1.0)
    store.engines["llama"].series[S.WAITING] = series
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        before = screen_text(app)
        await pilot.press(*"zzzzz")
        await pilot.pause()
        assert "4h" in screen_text(app) or "3h" in screen_text(app)
        assert screen_text(app) != before


def test_a_cursor_at_the_edge_moves_the_charts_and_no_further_than_a_day() -> None:
    charts = ChartNavigation()
    for _ in range(60):
        charts.move(-1, NOW, 50)
    assert charts.axis.end is not None and charts.axis.end < NOW
    for _ in range(200):
        charts.zoom(1)
        charts.pan(-1, NOW)
    assert charts.axis.window_s == 24 * 3600
    assert charts.axis.end is None or charts.axis.end >= NOW - 24 * 3600
    for _ in range(200):
        charts.pan(1, NOW)
    assert charts.axis.end is None  # the present
    assert charts.back() and not charts.back()


def test_values_under_the_cursor_are_those_of_its_cell() -> None:
    series = Series()
    for second in range(100):
        series.append(NOW + second, float(second))
    assert series.summary(NOW + 10, NOW + 12) == Stretch(NOW + 10, 10.0, 10.5, 11.0, 2)
    assert series.summary(NOW + 200, NOW + 210) is None
