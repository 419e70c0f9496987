"""An engine that can be talked to: one that we started, or one that was only pointed at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmtop.engines.adapter import Adapter
from llmtop.engines.records import EngineRecord


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine answers and what kind it is.

    record: what the supervisor keeps of it; None when it was started by somebody else, so that
    it can be watched and loaded but neither stopped nor changed through our live-option socket.
    """

    name: str
    adapter: Adapter
    url: str
    model: str | None = None
    version: str | None = None
    record: EngineRecord | None = None

    @property
    def owned(self) -> bool:
        """Whether llmtop started it."""
        return self.record is not None

    @property
    def live_socket(self) -> Path | None:
        """The live-option socket, where there is one."""
        if self.record is None or not self.record.live_socket:
            return None
        return Path(self.record.live_socket)
