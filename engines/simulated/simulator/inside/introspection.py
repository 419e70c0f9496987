"""Introspection of one simulated engine: its steps write it, its live socket reads it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from llmtop.engines.simulated.simulator.inside.request_view import EngineRequests
from llmtop.engines.simulated.simulator.inside.step_recorder import MISSING, StepRecorder
from llmtop.engines.simulated.simulator.model.engine import Engine
from llmtop.engines.simulated.simulator.model.log import log
from llmtop.engines.simulated.simulator.model.scheduler import Emission, Plan
from llmtop.engines.tuning.inside.llmtop_live.introspection import Aborted, Introspection
from llmtop.engines.tuning.inside.llmtop_live.step_boundary import StepBoundary
from llmtop.engines.tuning.inside.llmtop_live.step_ring import StepRing


class SimulatorIntrospection:
    """Observes the steps of one engine, under the same guard as the plugins of real engines.

    introspection: answers the live socket. wall: unix seconds.
    """

    def __init__(
        self,
        engine: Engine,
        rank: int = 0,
        wall: Callable[[], float] = time.time,
        ring: StepRing | None = None,
    ) -> None:
        ring = ring or StepRing()
        self._engine = engine
        self._recorder = StepRecorder(engine.scheduler, ring, wall)
        self._boundary = StepBoundary(engine.wake_up)
        self.introspection = Introspection(_logger(), rank, clock=wall)
        self.introspection.steps = ring
        self.introspection.latencies = engine.telemetry.exact
        self.introspection.view = EngineRequests(engine)
        self.introspection.abort = self._abort
        self.introspection.boundary = self._boundary
        self.introspection.missing.update(MISSING)

    def between_steps(self) -> None:
        """Run the work of socket threads."""
        if self._boundary.attention:
            self._guarded(self._boundary.run)

    def resumed(self, now: float) -> None:
        """See ``engine.StepObserver``."""
        self._guarded(lambda: self._recorder.resumed(now))

    def planned(self, plan: Plan) -> None:
        """See ``engine.StepObserver``."""
        self._guarded(lambda: self._recorder.planned(plan))

    def completed(
        self, plan: Plan, emissions: Sequence[Emission], now: float, taken: tuple[float, ...]
    ) -> None:
        """See ``engine.StepObserver``."""
        self._guarded(lambda: self._recorder.completed(plan, emissions, now, *taken))

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.introspection.off is not None:
            return
        try:
            work()
        except Exception as error:
            self.introspection.switch_off(error, "a step")

    def _abort(self, ids: Sequence[str], by: str, reason: str) -> Aborted:
        aborted: list[str] = []
        before: list[str] = []
        for ident in ids:
            request = self._engine.find(ident)
            if request is None:
                before.append(ident)
            else:
                self._engine.abort(request)
                aborted.append(ident)
        return aborted, before, []


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log(record.getMessage(), record.levelname)


def _logger() -> logging.Logger:
    logger = logging.getLogger("llmtop.simulator")
    if not logger.handlers:
        logger.addHandler(_Lines())
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
