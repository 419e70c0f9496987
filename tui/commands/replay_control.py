"""The commands of a replay: another engine, its log, no changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from llmtop import LlmtopError
from llmtop.tui.commands.control import Control, EngineLog

if TYPE_CHECKING:
    from llmtop.engines.core.requests import RequestSort, RequestTable

RECORDED = "this is a recording: nothing can be changed in it"
NO_REQUESTS = "a recording has no single requests"


class ReplayControl(Control):
    """select: makes an engine the watched one. lines: those of an engine's log so far."""

    def __init__(
        self, select: Callable[[str], None], lines: Callable[[str], Sequence[str]]
    ) -> None:
        self._select, self._lines = select, lines

    def _refuse(self) -> NoReturn:
        raise LlmtopError(RECORDED)

    async def recall_curves(self, engine: str) -> None:
        """A recording has none."""

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """Refused: they are not recorded."""
        raise LlmtopError(NO_REQUESTS)

    def open_log(self, engine: str, count: int) -> EngineLog:
        """The lines that were recorded."""
        return RecordedLog(lambda: self._lines(engine), count)

    async def select(self, engine: str) -> None:
        """Watch another engine of the recording."""
        self._select(engine)

    async def quit(self, stop_engines: bool) -> None:
        """Nothing is to be ended."""


class RecordedLog:
    """The lines of a recording up to now; after a jump back they are not taken back."""

    def __init__(self, lines: Callable[[], Sequence[str]], count: int) -> None:
        self._lines = lines
        self._seen = max(0, len(lines()) - count)

    async def more(self) -> list[str]:
        """What came since the last call."""
        lines = list(self._lines())
        found, self._seen = lines[self._seen :], len(lines)
        return found
