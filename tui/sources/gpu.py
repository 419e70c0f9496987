"""The source that writes the GPUs' numbers into the store."""

from __future__ import annotations

import asyncio

from llmtop.engines.gpu.devices import Gpus
from llmtop.tui.store.store import Store


class GpuSource:
    """Updates ``Store.gpus``. NVML can block, so it is read on a thread."""

    def __init__(self, gpus: Gpus, store: Store) -> None:
        self._gpus = gpus
        self._store = store

    async def sample(self) -> None:
        """Read all GPUs once. If there are none, ``Gpus`` searches for them less often."""
        if self._gpus.asleep and not self._store.gpus:
            return
        self._store.gpus = await asyncio.to_thread(self._gpus.read)
        self._store.gpu_note = self._gpus.note

    async def close(self) -> None:
        """Release NVML."""
        self._gpus.close()
