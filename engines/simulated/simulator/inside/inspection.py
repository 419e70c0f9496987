"""The inside of one simulated engine: written by its steps, asked by its live socket."""

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


class Inspection:
    """See ``engine.Watcher``: what it does on the engine's side, under the guard of the plugins.

    shown: what the live socket asks. wall: unix seconds.
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
        self.shown = Introspection(_logger(), rank, clock=wall)
        self.shown.steps = ring
        self.shown.latencies = engine.telemetry.exact
        self.shown.view = EngineRequests(engine)
        self.shown.abort = self._abort
        self.shown.boundary = self._boundary
        self.shown.missing.update(MISSING)

    def between_steps(self) -> None:
        """Do what socket threads wait for."""
        if self._boundary.attention:
            self._guarded(self._boundary.run)

    def worked(self, now: float) -> None:
        """See ``engine.Watcher``."""
        self._guarded(lambda: self._recorder.worked(now))

    def planned(self, plan: Plan) -> None:
        """See ``engine.Watcher``."""
        self._guarded(lambda: self._recorder.planned(plan))

    def completed(
        self, plan: Plan, emissions: Sequence[Emission], now: float, taken: tuple[float, ...]
    ) -> None:
        """See ``engine.Watcher``."""
        self._guarded(lambda: self._recorder.completed(plan, emissions, now, *taken))

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.shown.off is not None:
            return
        try:
            work()
        except Exception as error:
            self.shown.switch_off(error, "a step")

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
