"""All of this room for one screen, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.tui.slo.curve_forecasts import CurveForecasts
from llmtop.tui.slo.effect_forecasts import EffectForecasts
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.slo.holds import Holds
from llmtop.tui.slo.why_forecasts import WhyForecasts
from llmtop.tui.store.store import Store

if TYPE_CHECKING:
    from llmtop.operations.insight.engine_insight import EngineInsight
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.commands.experiment_requests import TunePlan
    from llmtop.tui.sources.engine import EngineSource
    from llmtop.tui.sources.experiments import Experiments
    from llmtop.tui.sources.sampling import Source


class SloServices:
    """find: the source of an engine. inside: what is read of its steps. now: the screen's clock.

    news: something should be seen before the next beat.
    """

    def __init__(
        self,
        store: Store,
        wiring: Wiring,
        find: Callable[[str | None], EngineSource | None],
        inside: Callable[[str], EngineInsight | None],
        now: Callable[[], float],
        news: Callable[[], None],
    ) -> None:
        facts = self._facts = ForecastFacts(store, find, inside)
        self.holds = Holds(store, now, wiring)
        self.curves = CurveForecasts(store, facts, news)
        self.effects = EffectForecasts(store, facts, now, news)
        self.whys = WhyForecasts(store, facts, now, news)

    @staticmethod
    def may_tune(source: EngineSource) -> None:
        """Raises LlmtopError for an engine whose options another process changes now."""
        hold = source.track.hold
        if hold is not None:
            raise LlmtopError(
                f"{source.track.name} is held by {hold.who}, and the limits are its own",
                "end the hold first",
            )

    def tune(self, experiments: Experiments, source: EngineSource, plan: TunePlan) -> None:
        """Begin a tune; LlmtopError when something else runs or the engine is not ready."""
        from llmtop.tui.slo.tune_run import TuneRun  # here: it is what takes long to import

        experiments.guard()
        experiments.begin(TuneRun(experiments.parts, source, plan, self._facts), source)

    @property
    def sources(self) -> list[Source]:
        """What wants a beat of the screen."""
        return [self.holds, self.effects, self.curves, self.whys]
