"""An engine that llmtop can reach: one that it started, or one that the operator named by URL."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord


class Endpoint(Struct, frozen=True):
    """The address and the kind of an engine.

    record: the supervisor's record; None when llmtop did not start it. Such an engine can be
    watched and loaded, but not stopped or changed through llmtop's live-option socket.
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
        """The path of the live-option socket, if there is one."""
        if self.record is None or not self.record.live_socket:
            return None
        return Path(self.record.live_socket)

    @property
    def live_ranks(self) -> tuple[int, ...]:
        """Its data-parallel ranks, each with its own socket; () for one scheduler."""
        return () if self.record is None else self.adapter.live_ranks(self.record.spec.args)

    @property
    def by_http(self) -> bool:
        """Whether options change through the engine's HTTP interface, not llmtop's socket.

        This holds for an engine that llmtop did not start, and for one whose ranks must all apply
        a value in the same round: the socket reaches only one rank.
        """
        if self.adapter.stock_live is None:
            return False
        if self.record is None:
            return True
        told = self.adapter.launch_options(self.record.spec.args)
        ranks = (told.get(name) for name in ("tp_size", "dp_size", "pp_size"))
        return any(isinstance(size, int) and size > 1 for size in ranks)
