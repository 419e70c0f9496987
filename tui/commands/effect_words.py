"""The expected and the measured effect of a change, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.tui.commands.forecast_requests import EffectForecast, MeasuredEffect
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.forecast.intervals import Interval
    from llmtop.forecast.questions import Answer

Formatter = Callable[[float | None], str]
GOOD = "goodput_per_s"
FIGURES: tuple[tuple[str, str, Formatter], ...] = (
    ("TTFT p95", "ttft_p95", f.latency),
    ("TPOT p95", "tpot_p95", f.latency),
    ("tok/s", "output_tokens_per_s", f.count),
    ("in time/s", GOOD, f.rate),
    ("refused", "refused", f.percent),
)


def compared_words(found: EffectForecast) -> tuple[str, ...]:
    """The expected effect of a change beside the measured one, as the parts of an event."""
    answers, measured = answers_of(found), found.measured
    if answers is None or measured is None:
        return ()
    question = found.question
    parts = [f"{f.clean(question.option, 60)} = {f.option(question.value)}"]
    for title, name, formatter in FIGURES[:4]:
        value = measured_words(measured, name, formatter)
        if name in answers[1].expected and value:
            expected = answers[1].expected[name]
            parts.append(f"{title} expected {_ranged(expected, formatter)}, measured {value}")
    parts.append(f"n={measured.n:,} in {f.span(measured.seconds)}")
    return (*parts, *([measured.remark] if measured.remark else []))


def answers_of(found: EffectForecast) -> tuple[Answer, Answer] | None:
    """The answers for the present value and for the new one; None while there are none."""
    forecast = found.forecast
    if forecast is None or forecast.answer is None or forecast.now is None or found.refused:
        return None
    return forecast.now, forecast.answer


def measured_words(measured: MeasuredEffect, name: str, formatter: Formatter) -> str:
    """The measured value of a figure; "" if it is not known."""
    if name == GOOD:
        if measured.good is None:
            return ""
        low, high = (formatter(value) for value in measured.good)
        return low if low == high else f"{low} to {high}"
    value = measured.figures.get(name)
    return "" if value is None else formatter(value)


def _ranged(found: Interval, formatter: Formatter) -> str:
    return f"{formatter(found.value)} ({formatter(found.low)} to {formatter(found.high)})"
