"""Reads the input of a forecast from a running engine: its steps, load, state and options."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.engines.core.requests import RequestTable
from llmtop.engines.core.steps import Step
from llmtop.forecast.questions import Refusal
from llmtop.operations.inside import require_inside
from llmtop.operations.slo.fitted_engine import (
    FIT_S,
    EngineReadings,
    FittedEngine,
    bandwidth_of,
    bandwidth_of_all,
    fit_engine,
    measured,
    newest,
    seconds_of_context,
    seconds_of_weights,
    simulated_gpu,
)
from llmtop.operations.slo.limits import DRAFTS, role_of

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

LISTEN_S = 3.0  # window of latencies: the engine's own counts go back to its start


class Forecaster:
    """Reads one engine. Close it after use. Raises LlmtopError for one without a live socket."""

    def __init__(self, wiring: Wiring, endpoint: Endpoint, session: EngineSession) -> None:
        self._wiring, self._endpoint, self._session = wiring, endpoint, session
        self._inside: EngineInside = require_inside(endpoint)
        self._steps: list[Step] = []
        self._context_s: float | None = None
        self._weights_s: float | None = None
        self._memory_read = False

    def close(self) -> None:
        """Close the sockets."""
        self._inside.close()

    async def gather(
        self, streams: float | None = None, listen_s: float = LISTEN_S
    ) -> FittedEngine:
        """Read the engine and fit a model.

        streams: if the sender of the load reports a closed loop, its streams. listen_s: length of
        the window, in seconds. Raises NotFitted when there is too little data, LlmtopError when the
        engine does not answer.
        """
        options = await self._session.read_options()
        sample = await self._session.sample()
        before = await self._latencies()
        await self._read()
        if listen_s > 0:
            await asyncio.sleep(listen_s)
            await self._read()
        after = await self._latencies()
        table: RequestTable | None = None
        with suppress(LlmtopError):
            table = await self._inside.requests("age", 50)
        if not self._memory_read:
            self._memory_read = True
            await asyncio.to_thread(self._read_memory, sample.kv_tokens_total)
        steps = self._steps
        return await asyncio.to_thread(
            fit_engine,
            EngineReadings(
                name=self._endpoint.name,
                simulated=self._endpoint.adapter.simulated,
                steps=steps,
                options=options.options,
                kv_tokens=sample.kv_tokens_total,
                context_s=self._context_s,
                weights_s=self._weights_s,
                table=table,
                latencies=after,
                streams=streams,
                measured=measured(newest(steps, max(listen_s, 1.0)), before, after),
            ),
        )

    async def _read(self) -> None:
        found = await self._inside.steps()
        if found.restarted:
            self._steps = []
        self._steps = newest([*self._steps, *found.steps], FIT_S)
        if "steps" in found.missing and not self._steps:
            raise LlmtopError(f"the engine does not show its steps: {found.missing['steps']}")

    async def _latencies(self) -> Latencies | None:
        with suppress(LlmtopError):
            return await self._inside.latencies()
        return None

    def _read_memory(self, tokens: int | None) -> None:
        """Set the read times of context and weights, from the memory report in the engine's log."""
        record = self._endpoint.record
        memory = self._wiring.supervisor.memory_report(record) if record is not None else None
        if memory is None:
            return
        bandwidth = self._bandwidth()
        ranks = len(self._endpoint.live_ranks)
        self._context_s = seconds_of_context(memory.kv, tokens, ranks, bandwidth)
        self._weights_s = seconds_of_weights(memory.weights, bandwidth)

    def _bandwidth(self) -> float | None:
        if self._endpoint.adapter.simulated:
            return bandwidth_of(simulated_gpu(self._endpoint.record))
        with suppress(LlmtopError, OSError):
            return bandwidth_of_all({gpu.name for gpu in self._wiring.gpus.read()})
        return None


def not_forecast(options: Sequence[Option], changes: Mapping[str, OptionValue]) -> Refusal | None:
    """Why the observed steps do not allow a forecast of these changes; None if they do."""
    for name, value in changes.items():
        option = next(one for one in options if one.name == name)
        if value == option.value:
            continue
        if isinstance(value, int) and option.minimum is not None and value < option.minimum:
            return Refusal(
                f"{name} cannot be {value}: {option.minimum:g} is its lowest value",
                "ask for a value that the engine accepts",
            )
        if name in DRAFTS or not role_of(name):
            return Refusal(
                f"another {name} changes how steps are launched or computed, and no such step was"
                " observed",
                f"measure it: llmtop compare NAME --a {name}={option.value} --b {name}={value}",
            )
        high = option.maximum
        if isinstance(value, int) and high is not None and value > high:
            return Refusal(
                f"{name} can be at most {high:g} on this engine: more needs a restart, which"
                " changes how steps are launched",
                f"ask for {high:g}, or restart the engine with more and ask again",
            )
        fixed = option.applies is Applies.RESTART and isinstance(option.value, int)
        if fixed and isinstance(value, int) and value > int(option.value or 0):
            return Refusal(
                f"a higher {name} needs a restart, and no such step was observed",
                "restart the engine with it, then ask again",
            )
    return None
