"""Finds engines that appear while the screen is open: new ones, or ones that answer late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.host.processes import identity
from llmtop.operations.wiring import Wiring
from llmtop.wording.sentences import why

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint

RESCAN_S = 5.0


class NewEngines:
    """Adds engines that another llmtop started while this screen is open.

    This includes engines that failed before the first check: a crash loop must be visible.

    add: called with each new engine. known: names on the screen. every_s: seconds between two
    checks.
    """

    def __init__(
        self,
        wiring: Wiring,
        add: Callable[[Endpoint], None],
        known: set[str],
        steady: Callable[[], float] = time.monotonic,
        every_s: float = RESCAN_S,
    ) -> None:
        self._wiring, self._add, self._known, self._steady = wiring, add, known, steady
        self._opened = steady()
        self._every_s = every_s
        self._due = self._opened + every_s

    async def sample(self) -> None:
        """Check the records every few seconds."""
        if self._steady() < self._due:
            return
        self._due = self._steady() + self._every_s
        records: list[EngineRecord] = await asyncio.to_thread(self._wiring.supervisor.records)
        for record in records:
            # An engine that takes over a name appears under that name.
            known = record.name in self._known or record.replaces in self._known
            if not known and (record.ended_at is None or self._failed_here(record)):
                self._add(self._wiring.of(record))

    def _failed_here(self, record: EngineRecord) -> bool:
        if record.stop_requested_at is not None or record.boot_id != self._wiring.processes.boot_id:
            return False
        # The record's times are not used: the wall clock may have been stepped since.
        age_s = self._wiring.processes.age_s(identity(record))
        return age_s < self._steady() - self._opened

    async def close(self) -> None:
        """Do nothing: no resource is held."""


class MissingEngines:
    """Adds engines that were given by URL and did not answer when the screen was opened.

    add: called with each engine that answers. missing: ``Store.missing``, the reason by URL; it is
    updated in place.
    """

    def __init__(
        self,
        wiring: Wiring,
        add: Callable[[Endpoint], None],
        missing: dict[str, str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wiring, self._add, self._missing, self._steady = wiring, add, missing, steady
        self._due = steady() + RESCAN_S

    async def sample(self) -> None:
        """Ask each missing engine again, every few seconds."""
        if not self._missing or self._steady() < self._due:
            return
        await asyncio.gather(*map(self._ask, list(self._missing)))
        self._due = self._steady() + RESCAN_S

    async def _ask(self, url: str) -> None:
        try:
            endpoint = await self._wiring.endpoint(url)
        except LlmtopError as error:
            self._missing[url] = why(error)
            return
        del self._missing[url]
        self._add(endpoint)

    async def close(self) -> None:
        """Do nothing: no resource is held."""
