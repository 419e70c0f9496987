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
    """A request for the effect of another value of an option. slo: limits, as typed."""

    engine: str
    option: str
    value: OptionValue
    slo: str


class MeasuredEffect(Struct, frozen=True):
    """An engine's own measurement after a change, over ``seconds``, of ``n`` first tokens.

    figures: by the names of the forecast; None if unknown. good: lower and upper bound of requests
    a second in time; None if unknown. remark: other changes meanwhile, "" for none.
    """

    figures: Mapping[str, float | None]
    good: tuple[float, float] | None
    n: int
    seconds: float
    remark: str = ""


class EffectForecast(Struct, frozen=True):
    """An answer. forecast: None during the computation, or for the reason in ``trouble``.

    since: the screen's time at which the value was set, None before. measured: None before.
    """

    question: EffectQuestion
    forecast: Forecast | None = None
    trouble: str = ""
    since: float | None = None
    measured: MeasuredEffect | None = None

    @property
    def refused(self) -> str:
        """Why there are no figures, "" for none."""
        refusal = self.forecast.refused if self.forecast is not None else None
        return self.trouble or (f"{refusal.reason}; {refusal.remedy}" if refusal else "")

    @property
    def computing(self) -> bool:
        """Whether the answer is still being computed."""
        return self.forecast is None and not self.trouble


class CurveQuestion(Struct, frozen=True):
    """What throughput is expected of an engine at each number of streams? prompt, output: tokens.

    measured: the highest number of streams that is measured already; what was forecast up to there
    stays as it was forecast before.
    """

    engine: str
    prompt: Lengths
    output: Lengths
    top: int
    measured: int = 0

    def same_search(self, other: CurveQuestion) -> bool:
        """Whether both are about one search, whatever is measured by then."""
        mine = self.engine, self.prompt, self.output, self.top
        return mine == (other.engine, other.prompt, other.output, other.top)


class ForecastPoint(Struct, frozen=True):
    """Output tokens a second at so many streams, with the interval."""

    streams: int
    value: float
    low: float
    high: float


class CurveForecast(Struct, frozen=True):
    """points: by streams, rising; none while none is possible, for the reason in ``refused``.

    knee: streams, None where it cannot be claimed.
    """

    question: CurveQuestion
    points: tuple[ForecastPoint, ...] = ()
    knee: float | None = None
    refused: str = ""
