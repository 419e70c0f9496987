"""The engines of a canary: which are meant, how each serves, and how it is changed."""

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
WORK = "the canary"  # how a change is called that a killed llmtop left
PATIENCE_S = 5.0  # beside a start or on a full machine, an engine that serves answers late
AGAIN_S = 0.5


class Trouble(Struct, frozen=True):
    """Why an engine does not serve, "" when it does. passing: it may be over at the next look."""

    words: str = ""
    passing: bool = False


async def lasting(
    look: Callable[[], Awaitable[Trouble]],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> str:
    """The words of a trouble that lasts: one that may pass is looked at again for PATIENCE_S."""
    began = monotonic()
    while True:
        found = await look()
        if not (found.words and found.passing) or monotonic() - began >= PATIENCE_S:
            return found.words
        await sleep(AGAIN_S)


def is_selection(text: str) -> bool:
    """Whether a name means several engines: ``model=llama-*``."""
    return text.partition("=")[0] in KEYS and "=" in text


def selected(text: str, records: Sequence[EngineRecord]) -> list[EngineRecord]:
    """The living engines that a selection means. UsageError where there are fewer than two."""
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
            f"a canary needs two engines or more, and {text} means {shown}", "see `llmtop ps`"
        )
    return found


class CanaryEngine:
    """One engine of the selection: its session, and what its requests kept to so far."""

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
        """Requests in time since the engine started, for each limit; exact where it shows them."""
        if self._exact is None:  # one source for all looks: their counts are compared
            self._exact = await self._shows(limits)
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

    async def _shows(self, limits: Mapping[str, float]) -> bool:
        """Whether it shows exact latencies for all limits."""
        if self._inside is None:
            return False
        try:
            found = await self._inside.latencies()
        except LlmtopError:
            return False
        return all(name in found.histograms for name in limits)

    async def trouble(self) -> str:
        """Why it does not serve, "" when it does. One that is silent gets a few seconds."""
        return await lasting(self._observe)

    async def _observe(self) -> Trouble:
        status = await asyncio.to_thread(self._wiring.supervisor.status, self._record)
        if status.state is not State.READY:
            silent = status.state is State.UNRESPONSIVE
            return Trouble(f"{self.name} is {status.state.value}", passing=silent)
        try:
            sample = await self.session.sample()
        except LlmtopError as error:
            return Trouble(f"{self.name}: {error.message}", passing=True)
        hung = [one.message for one in sample.conditions if one.name in STALE]
        return Trouble(f"{self.name}: {hung[0]}" if hung else "")

    def keep(self) -> None:
        """What was changed is to stay, whatever becomes of this llmtop."""
        self._wiring.temporary_changes.keep(self._record, tuple(self.before))

    async def change(self, wanted: Mapping[str, OptionValue]) -> None:
        """Change options; if this llmtop is killed, the next one reports what is left changed.

        LlmtopError when a change is refused.
        """
        for change in await self.session.change(wanted, purpose=Purpose(WORK, self.before)):
            if change.failed:
                raise LlmtopError(f"{self.name}: {change.option}: {change.reason or 'refused'}")

    async def close(self) -> None:
        """Give the sockets back."""
        await self._reader.close()
        await self.session.close()
