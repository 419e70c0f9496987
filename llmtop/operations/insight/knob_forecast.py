"""What a change that ``why`` advises would bring, by the forecast where there can be one."""

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

FIGURES = {  # as the twin names them, by the name that ``why`` shows
    "output_tokens_per_s": "output_tokens_per_s",
    "ttft_p50_s": "ttft_p50",
    "tpot_p50_s": "tpot_p50",
}


async def with_forecasts(
    wiring: Wiring, endpoint: Endpoint, session: EngineSession, found: Explanation
) -> Explanation:
    """The explanation with forecasts in the place of estimates. Each says which of both it is."""
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
    """The same, from what is known of the engine. Takes CPU time.

    run: makes one draw; may raise to end it.
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
            told = answer(known, asked, now=now, run=run)
        except LlmtopError as error:
            causes.append(replace(cause, knob=_estimate(knob, str(error))))
            continue
        if told.refused is not None or told.answer is None:
            reason = told.refused.reason if told.refused is not None else "no answer"
            causes.append(replace(cause, knob=_estimate(knob, reason)))
            continue
        now = told.now
        causes.append(replace(cause, knob=_forecast(knob, told.answer)))
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
    """The knob as it was; why there is no forecast stands beside the estimate, if there is one."""
    words = f"no forecast: {reason}"
    return replace(knob, basis=f"{knob.basis}; {words}" if knob.expected else words)


def without_forecasts(found: Explanation, reason: str) -> Explanation:
    """The explanation as it was, with why there is no forecast."""
    causes = [
        replace(cause, knob=_estimate(cause.knob, reason))
        if cause.knob is not None and _can_be_asked(cause)
        else cause
        for cause in found.causes
    ]
    return replace(found, causes=tuple(causes))
