"""A source that serves the metrics of the store's engines: the exporter inside the recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.analysis.events import Event
from llmtop.exporter.engine_families import families
from llmtop.exporter.page import Page
from llmtop.printable import clean

if TYPE_CHECKING:
    from llmtop.operations.monitoring.recorder_export import RecorderExport
    from llmtop.tui.monitoring.watches import Watches
    from llmtop.tui.store.store import Store

AGAIN_BEATS = 10  # between two attempts to bind an address that is in use


class ExportSource:
    """Follows the engines and serves their metrics page.

    now: the clock of events. trouble: why the page cannot be served, "" while it is served.
    """

    def __init__(
        self, store: Store, watches: Watches, export: RecorderExport, now: Callable[[], float]
    ) -> None:
        self._store, self._watches, self._export, self._now = store, watches, export, now
        self._page = Page(lambda: families(watches.facts(export.gpu_hour), watches.orphans))
        self._wait = 0
        self.trouble = ""

    async def sample(self) -> None:
        """Listen if the page is not served yet, then read the engines."""
        if not self._page.port and self._wait <= 0:
            await self._listen()
        self._wait -= 1
        await self._watches.sample()

    async def close(self) -> None:
        """Stop listening."""
        await self._page.close()

    async def _listen(self) -> None:
        self._wait = AGAIN_BEATS
        try:
            await self._page.start(self._export.host, self._export.port)
        except LlmtopError as error:
            if error.message != self.trouble:
                self.trouble = error.message
                self._store.events.append(Event(self._now(), "error", clean(error.message)))
            return
        self.trouble = ""
