"""The commands of a replay: selecting an engine and reading its log. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from llmtop import LlmtopError
from llmtop.tui.commands.control import Control, EngineLog

if TYPE_CHECKING:
    from llmtop.engines.core.requests import RequestSort, RequestTable

RECORDED = "this is a recording: nothing can be changed in it"
NO_REQUESTS = "a recording does not contain requests"


class ReplayControl(Control):
    """The control of a replay.

    select: selects an engine. lines: returns the recorded log lines of an engine up to now.
    """

    def __init__(
        self, select: Callable[[str], None], lines: Callable[[str], Sequence[str]]
    ) -> None:
        self._select, self._lines = select, lines

    def _refuse(self) -> NoReturn:
        raise LlmtopError(RECORDED)

    async def recall_curves(self, engine: str) -> None:
        """Do nothing: a recording has no curves of earlier sessions."""

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """Raise LlmtopError: requests are not recorded."""
        raise LlmtopError(NO_REQUESTS)

    def open_log(self, engine: str, count: int) -> EngineLog:
        """The recorded log of an engine."""
        return RecordedLog(lambda: self._lines(engine), count)

    async def select(self, engine: str) -> None:
        """Select another engine of the recording."""
        self._select(engine)

    async def quit(self, stop_engines: bool) -> None:
        """Do nothing: a replay runs neither a load nor engines."""


class RecordedLog:
    """The log lines of a recording up to now. A jump back removes no line from the log screen."""

    def __init__(self, lines: Callable[[], Sequence[str]], count: int) -> None:
        self._lines = lines
        self._seen = max(0, len(lines()) - count)

    async def more(self) -> list[str]:
        """The lines since the last call."""
        lines = list(self._lines())
        new, self._seen = lines[self._seen :], len(lines)
        return new
