"""Makes the loads of a screen: sets their engine, API key and prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.engines.gpu.devices import Gpus
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.operations.wiring import Wiring
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.store.store import Store

if TYPE_CHECKING:
    from llmtop.engines.gpu.energy import EngineEnergy
    from llmtop.loadgen.core.client_capacity import Calibration
    from llmtop.loadgen.core.results import RequestRecord
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.loadgen.workers.load import Load

MEASURING_TIMEOUT_S = 120.0  # of a measured request; the same as in `llmtop saturate`


class Loads:
    """Makes loads; the caller starts them."""

    def __init__(self, store: Store, wiring: Wiring) -> None:
        self._store, self._wiring = store, wiring

    def on_screen(self, source: EngineSource) -> Load:
        """A load that keys control, with the prompts of the screen."""
        from llmtop.loadgen.workers.load import Load  # takes 50 ms: after the screen is shown

        return Load(self._target(source), self._store.prompts, calibration=self._calibration())

    def measuring(
        self,
        source: EngineSource,
        prompts: Prompts,
        *,
        clock: LoadClock,
        window_s: float,
        on_record: Callable[[RequestRecord], None],
    ) -> Load:
        """A load of a search, a comparison or a tune; see ``sources.experiment.NewLoad``."""
        from llmtop.loadgen.workers.load import Load

        return Load(
            self._target(source),
            prompts,
            timeout_s=MEASURING_TIMEOUT_S,
            window_s=window_s,
            on_record=on_record,
            calibration=self._calibration(),
            monotonic=clock.ns,
        )

    def _calibration(self) -> Calibration | None:
        """This client's capacity from an earlier calibration; none runs while a screen is open."""
        from llmtop.operations.calibrated import remembered  # imports the load's modules, as above

        wiring = self._wiring
        return remembered(wiring.state.root, wiring.processes.boot_id)

    def _target(self, source: EngineSource) -> Target:
        from llmtop.loadgen.client.model_discovery import discover_model

        endpoint = source.session.endpoint
        key = self._wiring.key_for(endpoint)
        trust = self._wiring.trusts.of(endpoint.url)
        return Target(
            url=endpoint.url,
            model=discover_model(endpoint.url, key, trust=trust),
            api_key=key,
            trust=trust,
            rid=endpoint.adapter.kind == "sglang",
        )

    def energy(self, source: EngineSource) -> EngineEnergy | None:
        """The energy meter of an engine's GPUs; None if llmtop did not start a real engine."""
        record = source.session.endpoint.record
        if record is None or record.simulated:
            return None
        from llmtop.engines.gpu.energy import EngineEnergy

        return EngineEnergy(record, Gpus(), self._wiring.processes)
