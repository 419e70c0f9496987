"""The engine under ``tune``: its options, its forecast, and the line that launches it so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.forecast.estimates import NotFitted
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.forecaster import Forecaster
from llmtop.operations.slo.limits import Names, live_names
from llmtop.operations.slo.tune_runs import launch_line, most_of, own_settings
from llmtop.operations.wiring import Wiring

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.options import Change
    from llmtop.engines.state.temporary_changes import Purpose
    from llmtop.operations.session import EngineSession


class Engine:
    """The engine under tune, with the calls that it takes. Close it behind you."""

    def __init__(self, wiring: Wiring, name: str) -> None:
        self.runner = asyncio.Runner()
        self.wiring = wiring
        self.endpoint: Endpoint = self.runner.run(wiring.endpoint(name))
        self.session: EngineSession = wiring.session(self.endpoint)
        self.options, why_not = self.runner.run(self.session.options())
        self.names = live_names(self.options)
        if not (self.names.batch_limit or self.names.queue_limit or self.names.token_budget):
            self.close()
            raise LlmtopError(
                f"no limit of {name} changes as it runs" + (f": {why_not}" if why_not else ""),
                "see `llmtop options`",
            )

    def set(self, wanted: Mapping[str, int], purpose: Purpose) -> tuple[Change, ...]:
        """See ``tuner.Setter``."""
        return self.runner.run(self.session.change(wanted, purpose=purpose))

    def close(self) -> None:
        """Give the sockets back."""
        with suppress(LlmtopError):
            self.runner.run(self.session.close())
        self.runner.run(self.wiring.fetch.close())
        self.runner.close()

    def own(self, roles: Sequence[str]) -> tuple[dict[str, int], Names]:
        """The operator's settings by role, and the names of what may change."""
        found, names = own_settings(self.options, roles)
        if not found:
            raise UsageError("none of these options changes live on this engine")
        return found, names

    def most(self, names: Names) -> dict[str, int]:
        """The highest value of each role that only a measurement knows."""
        return most_of(self.options, names)

    def known(self, streams: float | None) -> FittedEngine | None:
        """What a forecast needs; None where too little was seen."""
        forecaster = Forecaster(self.wiring, self.endpoint, self.session)
        try:
            return self.runner.run(forecaster.gather(streams, 0.0))
        except (NotFitted, LlmtopError):
            return None
        finally:
            forecaster.close()

    def launch_line(self, settings: Mapping[str, int]) -> str:
        """The command that launches the engine with these settings; "" where no flag has them."""
        return launch_line(self.endpoint, settings)
