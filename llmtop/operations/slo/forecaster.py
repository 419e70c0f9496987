"""Gathers what a forecast of a running engine needs: its steps, load, state and options."""

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

LISTEN_S = 3.0  # for latencies: they are counted since the engine started


class Forecaster:
    """Reads one engine. Close it after use.

    streams: the load is a closed loop of so many, as the one who sends it knows.
    """

    def __init__(self, wiring: Wiring, endpoint: Endpoint, session: EngineSession) -> None:
        self._wiring, self._endpoint, self._session = wiring, endpoint, session
        self._inside: EngineInside = require_inside(endpoint)
        self._steps: list[Step] = []
        self._context_s: float | None = None
        self._weights_s: float | None = None
        self._looked = False

    def close(self) -> None:
        """Give the sockets back."""
        self._inside.close()

    async def gather(
        self, streams: float | None = None, listen_s: float = LISTEN_S
    ) -> FittedEngine:
        """Read what is needed. NotFitted where too little was seen, LlmtopError where the engine
        does not answer."""
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
        if not self._looked:
            self._looked = True
            await asyncio.to_thread(self._look_at_memory, sample.kv_tokens_total)
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

    def _look_at_memory(self, tokens: int | None) -> None:
        record = self._endpoint.record
        anatomy = self._wiring.supervisor.anatomy(record) if record is not None else None
        if anatomy is None:
            return
        bandwidth = self._bandwidth()
        ranks = len(self._endpoint.live_ranks)
        self._context_s = seconds_of_context(anatomy.kv, tokens, ranks, bandwidth)
        self._weights_s = seconds_of_weights(anatomy.weights, bandwidth)

    def _bandwidth(self) -> float | None:
        if self._endpoint.adapter.simulated:
            return bandwidth_of(simulated_gpu(self._endpoint.record))
        with suppress(LlmtopError, OSError):
            return bandwidth_of_all({gpu.name for gpu in self._wiring.gpus.read()})
        return None


def not_forecast(options: Sequence[Option], changes: Mapping[str, OptionValue]) -> Refusal | None:
    """Whether a change is of a kind that the steps seen say nothing about."""
    for name, value in changes.items():
        option = next(one for one in options if one.name == name)
        if value == option.value:
            continue
        if isinstance(value, int) and option.minimum is not None and value < option.minimum:
            return Refusal(
                f"{name} cannot be {value}: {option.minimum:g} is its lowest value",
                "ask for a value that the engine takes",
            )
        if name in DRAFTS or not role_of(name):
            return Refusal(
                f"with another {name} steps are launched or computed in another way, and no such"
                " step was seen",
                f"measure it: llmtop compare NAME --a {name}={option.value} --b {name}={value}",
            )
        high = option.maximum
        if isinstance(value, int) and high is not None and value > high:
            return Refusal(
                f"{name} can go up to {high:g} on this engine: more needs a restart, after which"
                " steps are launched in another way",
                f"ask for {high:g}, or restart the engine with more and ask again",
            )
        fixed = option.applies is Applies.RESTART and isinstance(option.value, int)
        if fixed and isinstance(value, int) and value > int(option.value or 0):
            return Refusal(
                f"a higher {name} needs a restart, and no step like that was seen",
                "restart the engine with it, then ask again",
            )
    return None
