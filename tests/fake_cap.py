"""The live options of an engine that has one of them, a limit of running requests."""

from __future__ import annotations

from collections.abc import Mapping

from llmtop.engines.core.live_protocol import LiveOption, LiveState
from llmtop.engines.core.options import Applies, Change, Outcome


class FakeCap:
    """value: the limit now."""

    def __init__(self, value: int = 16) -> None:
        self.value = value

    async def get(self) -> LiveState:
        """The limit, of at most 16."""
        cap = LiveOption(self.value, 16, 1, 16, Applies.DRAINS)
        return LiveState(
            engine="x", version="1", pid=None, options={"max_num_seqs": cap}, history=()
        )

    async def set(
        self, changes: Mapping[str, int], *, evict: bool = False, by: str = "", wait_s: float = 1.0
    ) -> tuple[Change, ...]:
        """Apply it at once."""
        before, self.value = self.value, changes["max_num_seqs"]
        return (Change("max_num_seqs", before, self.value, Outcome.APPLIED, by=by),)

    async def close(self) -> None:
        """Nothing is held."""
