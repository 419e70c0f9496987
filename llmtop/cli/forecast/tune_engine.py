"""The engine that ``tune`` works on: its options, its forecast, and its launch command."""

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
    """The engine that is tuned, with synchronous calls. The caller must close it.

    Raises LlmtopError when none of its limits can change while it runs.
    """

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
                f"no limit of {name} can change while it runs"
                + (f": {why_not}" if why_not else ""),
                "see `llmtop options`",
            )

    def set(self, wanted: Mapping[str, int], purpose: Purpose) -> tuple[Change, ...]:
        """Change options; see ``tuner.Setter``."""
        return self.runner.run(self.session.change(wanted, purpose=purpose))

    def close(self) -> None:
        """Close the session and its sockets."""
        with suppress(LlmtopError):
            self.runner.run(self.session.close())
        self.runner.run(self.wiring.fetch.close())
        self.runner.close()

    def own(self, roles: Sequence[str]) -> tuple[dict[str, int], Names]:
        """The current settings by role, and the names of the options that may change.

        Raises UsageError when none of these roles changes live.
        """
        found, names = own_settings(self.options, roles)
        if not found:
            raise UsageError("none of these options changes live on this engine")
        return found, names

    def most(self, names: Names) -> dict[str, int]:
        """The highest allowed value of each role that the forecast cannot predict."""
        return most_of(self.options, names)

    def known(self, streams: float | None) -> FittedEngine | None:
        """The fitted model for a forecast; None when there were too few observations.

        streams: of a closed loop, else None.
        """
        forecaster = Forecaster(self.wiring, self.endpoint, self.session)
        try:
            return self.runner.run(forecaster.gather(streams, 0.0))
        except (NotFitted, LlmtopError):
            return None
        finally:
            forecaster.close()

    def launch_line(self, settings: Mapping[str, int]) -> str:
        """The command that launches the engine with these settings; "" when no flag sets them."""
        return launch_line(self.endpoint, settings)
