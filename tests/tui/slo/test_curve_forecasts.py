"""The forecast curve of a search: asked again as levels end, never fitted to what it foretells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.forecast.intervals import Interval
from llmtop.forecast.knee_forecast import CurvePoint, KneeForecast
from llmtop.forecast.questions import Refusal
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.forecast_requests import CurveForecast, CurveQuestion, ForecastPoint
from llmtop.tui.plots.curve import curve_rows
from llmtop.tui.plots.curve_axes import Drawing
from llmtop.tui.plots.slo.forecast_curve import refusal_words
from llmtop.tui.slo.curve_forecasts import CurveForecasts, merged
from llmtop.tui.store.store import Store
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.finding_states import searching
from tests.plain_rows import plain
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[App[None]], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZES = first(2, [(80, 24), (120, 40), (200, 60)])
ASKED = CurveQuestion("llama", (448, 576), (112, 144), 512)


def points(*streams: int, scale: float = 100.0) -> tuple[ForecastPoint, ...]:
    return tuple(
        ForecastPoint(one, one * scale, one * scale * 0.9, one * scale * 1.1) for one in streams
    )


class Facts:
    """What is known of the engine, or why nothing is."""

    def __init__(self, known: FittedEngine) -> None:
        self._known, self.trouble = known, ""

    async def known(self, engine: str) -> FittedEngine:
        if self.trouble:
            raise LlmtopError(self.trouble)
        return self._known


def found(*given: Any, **named: Any) -> KneeForecast:
    curve = tuple(CurvePoint(n, Interval(n * 50.0, n * 45.0, n * 55.0)) for n in (4, 8, 16))
    return KneeForecast(None, curve, Refusal("no more than 13 were seen", "run a higher load"))


async def test_it_is_computed_beside_the_screen_and_says_how_far_it_reaches(
    store: Store, known: FittedEngine
) -> None:
    told: asyncio.Queue[None] = asyncio.Queue()
    facts: Any = Facts(known)
    curves = CurveForecasts(store, facts, lambda: told.put_nowait(None), found)
    curves.ask(ASKED)
    await told.get()
    made = store.curve_forecast
    assert made is not None and [one.streams for one in made.points] == [4, 8, 16]
    assert made.refused == "no more than 13 were seen" and made.knee is None
    curves.ask(ASKED)  # is answered already
    facts.trouble = "the engine shows no steps yet"
    curves.ask(replace(ASKED, measured=8))
    await told.get()
    assert told.empty()
    assert store.curve_forecast is not None and store.curve_forecast.points == made.points
    curves.ask(replace(ASKED, engine="other"))
    await told.get()
    assert store.curve_forecast == CurveForecast(
        replace(ASKED, engine="other"), refused="the engine shows no steps yet"
    )
    await curves.close()


def test_what_was_foretold_of_a_measured_level_stays() -> None:
    before = CurveForecast(ASKED, points(4, 8, 16))
    later = CurveForecast(replace(ASKED, measured=8), points(4, 8, 16, 32, scale=200))
    kept = merged(before, later)
    assert [(one.streams, one.value) for one in kept.points] == [
        (4, 400), (8, 800), (16, 3200), (32, 6400),
    ]  # fmt: skip
    again = CurveForecast(ASKED, points(4, scale=300))
    assert merged(kept, again) == again  # another search


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_the_curve_is_dots_in_a_band_and_covers_nothing_measured(glyphs: Any) -> None:
    curve = searching(0.0).curve
    bare = plain(curve_rows(Drawing(curve), 100, 24, glyphs))
    forecast = CurveForecast(ASKED, points(4, 32, 128, scale=40))
    rows = plain(curve_rows(Drawing(curve, forecast=forecast), 100, 24, glyphs))
    assert glyphs.band in "".join(rows) and glyphs.dot in "".join(rows)
    for before, after in zip(bare, rows, strict=True):
        for one, other in zip(before, after, strict=True):
            assert one == other or one in (" ", "\u2800")


@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_asks_for_it_and_draws_it_with_its_name(
    make_app: Make,
    store: Store,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
    now: float,
    size: tuple[int, int],
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("s")
        await settle(pilot)
        assert control.curves[-1].engine == "llama" and control.curves[-1].measured == 0
        assert "forecast" not in screen_text(pilot.app)
        store.search = searching(now, 4, over=False)
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        asked = control.curves[-1]
        assert asked == replace(ASKED, measured=32)
        store.curve_forecast = CurveForecast(asked, points(4, 32, 64, scale=50), 57.0)
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        assert "·· forecast, knee about 57" in screen_text(pilot.app)
        store.curve_forecast = CurveForecast(asked, refused="only 12 steps were seen")
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        assert "no forecast: only 12 steps" in screen_text(pilot.app)


@pytest.mark.parametrize("cells", [40, 55, 80, 140])
def test_why_a_forecast_ends_is_never_cut_in_a_word(cells: int) -> None:
    reason = "throughput still grows at 64 streams, and no more than 5 requests in a step were seen"
    words = "".join(
        one for one, _ in refusal_words(CurveForecast(ASKED, points(4, 64), refused=reason), cells)
    )
    assert words.strip().startswith("no forecast beyond 64 streams") and len(words) <= cells
    assert words.endswith(("streams", "seen"))
