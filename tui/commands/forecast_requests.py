"""Forecasts on the screen: the request, the expected effect, and the later measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from llmtop.engines.core.options import OptionValue
    from llmtop.loadgen.workload.lengths import Lengths
    from llmtop.operations.slo.ask import Forecast


class EffectQuestion(Struct, frozen=True):
    """A request for the effect of another value of an option. slo: latency limits, as typed."""

    engine: str
    option: str
    value: OptionValue
    slo: str


class MeasuredEffect(Struct, frozen=True):
    """The effect of a change, measured by the engine over ``seconds`` seconds.

    figures: seconds or tokens a second, by the names of the forecast; None if unknown. good: lower
    and upper bound of the requests a second within the limits; None if unknown. n: requests with a
    first token. remark: another change during the measurement, "" for none.
    """

    figures: Mapping[str, float | None]
    good: tuple[float, float] | None
    n: int
    seconds: float
    remark: str = ""


class EffectForecast(Struct, frozen=True):
    """The forecast for a question, and the measurement after the change.

    forecast: None during the computation, or for the reason in ``trouble``. since: when the value
    was set, on the screen's clock; None before. measured: None until the measurement has ended.
    """

    question: EffectQuestion
    forecast: Forecast | None = None
    trouble: str = ""
    since: float | None = None
    measured: MeasuredEffect | None = None

    @property
    def refused(self) -> str:
        """Why there are no figures; "" if there are some, or during the computation."""
        refusal = self.forecast.refused if self.forecast is not None else None
        return self.trouble or (f"{refusal.reason}; {refusal.remedy}" if refusal else "")

    @property
    def computing(self) -> bool:
        """Whether the forecast is still being computed."""
        return self.forecast is None and not self.trouble


class CurveQuestion(Struct, frozen=True):
    """A request for the expected throughput of an engine at each number of streams.

    prompt, output: lengths in tokens. top: the highest number of streams. measured: the highest
    number of streams that is already measured; up to it the earlier forecast is kept.
    """

    engine: str
    prompt: Lengths
    output: Lengths
    top: int
    measured: int = 0

    def same_search(self, other: CurveQuestion) -> bool:
        """Whether both belong to the same search; ``measured`` may differ."""
        mine = self.engine, self.prompt, self.output, self.top
        return mine == (other.engine, other.prompt, other.output, other.top)


class ForecastPoint(Struct, frozen=True):
    """Output tokens a second at a number of streams. low, high: the interval of the estimate."""

    streams: int
    value: float
    low: float
    high: float


class CurveForecast(Struct, frozen=True):
    """The answer to a ``CurveQuestion``.

    points: in ascending order of streams; empty if no forecast is possible. knee: streams; None if
    the model cannot locate it. refused: why there is no forecast, "" if there is one.
    """

    question: CurveQuestion
    points: tuple[ForecastPoint, ...] = ()
    knee: float | None = None
    refused: str = ""
