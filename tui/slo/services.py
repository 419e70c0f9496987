"""Builds the holds and forecasts of one screen."""

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
    """The holds, forecasts and tunes of one screen.

    find: the source of an engine, by its name. inside: its steps and latencies; None if they are
    not read. now: the screen's clock. repaint: called to paint before the next beat.
    """

    def __init__(
        self,
        store: Store,
        wiring: Wiring,
        find: Callable[[str | None], EngineSource | None],
        inside: Callable[[str], EngineInsight | None],
        now: Callable[[], float],
        repaint: Callable[[], None],
    ) -> None:
        facts = self._facts = ForecastFacts(store, find, inside)
        self.holds = Holds(store, now, wiring)
        self.curves = CurveForecasts(store, facts, repaint)
        self.effects = EffectForecasts(store, facts, now, repaint)
        self.whys = WhyForecasts(store, facts, now, repaint)

    @staticmethod
    def may_tune(source: EngineSource) -> None:
        """Raise LlmtopError for an engine that is held: the holder changes its options."""
        hold = source.track.hold
        if hold is not None:
            raise LlmtopError(
                f"{source.track.name} is held by {hold.who}, which controls its limits",
                "end the hold first",
            )

    def tune(self, experiments: Experiments, source: EngineSource, plan: TunePlan) -> None:
        """Begin a tune. Raises LlmtopError if an experiment runs or the engine is not ready."""
        from llmtop.tui.slo.tune_run import TuneRun  # imported late: it is slow to import

        experiments.guard()
        experiments.begin(TuneRun(experiments.parts, source, plan, self._facts), source)

    @property
    def sources(self) -> list[Source]:
        """The sources to sample at each beat."""
        return [self.holds, self.effects, self.curves, self.whys]
