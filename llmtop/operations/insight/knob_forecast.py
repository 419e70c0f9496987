"""Forecasts the effect of the changes that ``why`` recommends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmtop import LlmtopError
from llmtop.diagnosis.causes import CauseFound, Explanation, Knob
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.questions import Answer
from llmtop.forecast.twin import Run, simulate
from llmtop.operations.inside import inside_of
from llmtop.operations.slo.ask import Asked, answer, streams_of
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.forecaster import Forecaster
from llmtop.operations.slo.limits import role_of
from llmtop.wording.format import latency, rate

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

FIGURES = {  # name in the output of ``why``: name in the forecast
    "output_tokens_per_s": "output_tokens_per_s",
    "ttft_p50_s": "ttft_p50",
    "tpot_p50_s": "tpot_p50",
}


async def with_forecasts(
    wiring: Wiring, endpoint: Endpoint, session: EngineSession, found: Explanation
) -> Explanation:
    """Replace the estimates of an explanation by forecasts. ``basis`` shows which of both it is."""
    if inside_of(endpoint) is None or not any(map(_can_be_asked, found.causes)):
        return found
    forecaster = Forecaster(wiring, endpoint, session)
    try:
        known = await forecaster.gather(streams_of(wiring, endpoint.name), 0.0)
    except (NotFitted, LlmtopError) as error:
        return without_forecasts(found, getattr(error, "reason", str(error)))
    finally:
        forecaster.close()
    return await asyncio.to_thread(forecast_knobs, found, known)


def forecast_knobs(
    found: Explanation, known: FittedEngine, *, run: Callable[..., Run] = simulate
) -> Explanation:
    """Replace the estimates by forecasts from a fitted engine. Takes CPU time: call in a thread.

    run: simulates one draw; it may raise to cancel the forecast.
    """
    causes = []
    now: Answer | None = None
    for cause in found.causes:
        knob = cause.knob
        if knob is None or not _can_be_asked(cause):
            causes.append(cause)
            continue
        asked = Asked({knob.option: str(knob.after)}, knee=False)
        try:
            forecast = answer(known, asked, now=now, run=run)
        except LlmtopError as error:
            causes.append(replace(cause, knob=_estimate(knob, str(error))))
            continue
        if forecast.refused is not None or forecast.answer is None:
            reason = forecast.refused.reason if forecast.refused is not None else "no answer"
            causes.append(replace(cause, knob=_estimate(knob, reason)))
            continue
        now = forecast.now
        causes.append(replace(cause, knob=_forecast(knob, forecast.answer)))
    return replace(found, causes=tuple(causes))


def _can_be_asked(cause: CauseFound) -> bool:
    knob = cause.knob
    return knob is not None and bool(role_of(knob.option)) and isinstance(knob.after, int)


def _forecast(knob: Knob, found: Answer) -> Knob:
    expected = {}
    ranges = []
    for name, figure in FIGURES.items():
        one = found.expected.get(figure)
        if one is None:
            continue
        expected[name] = one.value
        words = rate if name == "output_tokens_per_s" else latency
        ranges.append(f"{words(one.low)} to {words(one.high)}")
    basis = f"forecast from the engine's own steps; in this order {', '.join(ranges)}"
    return replace(knob, expected=expected, basis=basis)


def _estimate(knob: Knob, reason: str) -> Knob:
    """The knob with its estimate, if any, and the reason why there is no forecast."""
    words = f"no forecast: {reason}"
    return replace(knob, basis=f"{knob.basis}; {words}" if knob.expected else words)


def without_forecasts(found: Explanation, reason: str) -> Explanation:
    """The explanation with its estimates, and the reason why there are no forecasts."""
    causes = [
        replace(cause, knob=_estimate(cause.knob, reason))
        if cause.knob is not None and _can_be_asked(cause)
        else cause
        for cause in found.causes
    ]
    return replace(found, causes=tuple(causes))
