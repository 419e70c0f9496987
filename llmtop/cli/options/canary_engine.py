"""The engines of a canary rollout: their selection, their measurement, their change."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.conditions import STALE
from llmtop.engines.core.records import State
from llmtop.engines.core.samples import Latency
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.fleet.canary import Counts, bucket_counts, exact_counts

if TYPE_CHECKING:
    from llmtop.engines.core.adapter import Reader
    from llmtop.engines.core.options import OptionValue
    from llmtop.engines.core.records import EngineRecord
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

KEYS = ("model", "engine", "name")
WORK = "the canary"  # names the cause of changes that a killed llmtop left in force
# How long a problem must last that may pass: on a busy machine, a healthy engine answers late.
PATIENCE_S = 5.0
RETRY_S = 0.5


class Problem(Struct, frozen=True):
    """Why an engine does not serve; words is "" when it does. transient: it may pass by itself."""

    words: str = ""
    transient: bool = False


async def lasting_problem(
    check: Callable[[], Awaitable[Problem]],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> str:
    """Return the words of a problem, "" for none. A transient one is checked again for PATIENCE_S
    seconds."""
    began = monotonic()
    while True:
        found = await check()
        if not (found.words and found.transient) or monotonic() - began >= PATIENCE_S:
            return found.words
        await sleep(RETRY_S)


def is_selection(text: str) -> bool:
    """Whether a name selects several engines: ``model=llama-*``."""
    return text.partition("=")[0] in KEYS and "=" in text


def selected(text: str, records: Sequence[EngineRecord]) -> list[EngineRecord]:
    """The engines that match a selection and have not ended. UsageError for fewer than two."""
    key, _, pattern = text.partition("=")
    fields: dict[str, Callable[[EngineRecord], str]] = {
        "model": lambda one: one.spec.model,
        "engine": lambda one: one.spec.kind,
        "name": lambda one: one.name,
    }
    living = [one for one in records if one.ended_at is None]
    found = [one for one in living if fnmatch.fnmatchcase(fields[key](one), pattern)]
    if len(found) < 2:
        shown = ", ".join(one.name for one in found) or "none"
        raise UsageError(
            f"a canary needs at least two engines, and {text} matches {shown}", "see `llmtop ps`"
        )
    return found


class CanaryEngine:
    """One engine of the selection: its session, and its requests within the limits so far."""

    def __init__(self, wiring: Wiring, record: EngineRecord) -> None:
        from llmtop.engines.metrics.scraper import open_reader
        from llmtop.operations.inside import inside_of

        endpoint = wiring.of(record)
        self.name = record.name
        self._wiring, self._record = wiring, record
        self.session: EngineSession = wiring.session(endpoint)
        self._inside: EngineInside | None = inside_of(endpoint)
        self._reader: Reader = open_reader(
            endpoint.adapter, endpoint.url, wiring.fetch, wiring.state.locks
        )
        self._exact: bool | None = None
        self.before: dict[str, OptionValue] = {}
        self.base: dict[str, Counts] = {}

    async def counts(self, limits: Mapping[str, float]) -> dict[str, Counts]:
        """For each limit, count the requests within it since the engine started.

        The counts are exact if the engine reports exact latencies, else from histogram buckets.
        """
        if self._exact is None:  # counts are subtracted, so all must come from the same source
            self._exact = await self._has_exact(limits)
        if self._exact and self._inside is not None:
            found = (await self._inside.latencies()).histograms
            return {
                name: exact_counts(found[name], limit) if name in found else Counts()
                for name, limit in limits.items()
            }
        reading = await self._reader.read()
        return {
            name: bucket_counts(reading.histograms[Latency(name)], limit)
            if Latency(name) in reading.histograms
            else Counts()
            for name, limit in limits.items()
        }

    async def _has_exact(self, limits: Mapping[str, float]) -> bool:
        """Whether the engine reports exact latencies for all limits."""
        if self._inside is None:
            return False
        try:
            found = await self._inside.latencies()
        except LlmtopError:
            return False
        return all(name in found.histograms for name in limits)

    async def problem(self) -> str:
        """Why the engine does not serve, "" when it does. A silent one gets a few seconds."""
        return await lasting_problem(self._check)

    async def _check(self) -> Problem:
        status = await asyncio.to_thread(self._wiring.supervisor.status, self._record)
        if status.state is not State.READY:
            silent = status.state is State.UNRESPONSIVE
            return Problem(f"{self.name} is {status.state.value}", transient=silent)
        try:
            sample = await self.session.sample()
        except LlmtopError as error:
            return Problem(f"{self.name}: {error.message}", transient=True)
        hung = [one.message for one in sample.conditions if one.name in STALE]
        return Problem(f"{self.name}: {hung[0]}" if hung else "")

    def keep(self) -> None:
        """Make the changes permanent: no later llmtop reports them as left behind."""
        self._wiring.temporary_changes.keep(self._record, tuple(self.before))

    async def change(self, wanted: Mapping[str, OptionValue]) -> None:
        """Change options. If this llmtop is killed, the next one reports the changed options.

        Raises LlmtopError when a change is refused.
        """
        for change in await self.session.change(wanted, purpose=Purpose(WORK, self.before)):
            if change.failed:
                raise LlmtopError(f"{self.name}: {change.option}: {change.reason or 'refused'}")

    async def close(self) -> None:
        """Close the sockets."""
        await self._reader.close()
        await self.session.close()
