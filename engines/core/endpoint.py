"""An engine that can be talked to: one that we started, or one that was only pointed at."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord


class Endpoint(Struct, frozen=True):
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

    @property
    def live_ranks(self) -> tuple[int, ...]:
        """Its data-parallel ranks, each with a socket of its own; () for one scheduler."""
        return () if self.record is None else self.adapter.live_ranks(self.record.spec.args)

    @property
    def by_http(self) -> bool:
        """Whether options change through the engine's own HTTP way and not through our socket.

        Those of somebody else's engine, and of one whose ranks must all take a value in the same
        round: the socket reaches one of them.
        """
        if self.adapter.stock_live is None:
            return False
        if self.record is None:
            return True
        told = self.adapter.launch_options(self.record.spec.args)
        ranks = (told.get(name) for name in ("tp_size", "dp_size", "pp_size"))
        return any(isinstance(size, int) and size > 1 for size in ranks)
