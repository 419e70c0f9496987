"""The paged KV cache: blocks with use counts, a prefix cache, and an LRU list of free blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """The blocks of the KV cache, with the number of requests that use each.

    An unused block is free. It keeps its content until it is allocated again; the least recently
    freed block is allocated first. Prefix caching: a free block with known content can be claimed
    by its key.
    """

    def __init__(self, total: int, block_size: int, caching: bool = True) -> None:
        self.total = total
        self.block_size = block_size
        self.caching = caching
        self._users = [0] * total
        self._key: list[int | None] = [None] * total
        self._by_key: dict[int, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))

    @property
    def free(self) -> int:
        """Unused blocks, cached or not."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that at least one request uses."""
        return self.total - len(self._free)

    def cached(self, key: int) -> bool:
        """Whether a block with this key exists, used or free."""
        return key in self._by_key

    def allocate(self, count: int) -> list[int] | None:
        """Allocate ``count`` blocks for one request; None if too few are free."""
        if count > len(self._free):
            return None
        return [self._take_oldest() for _ in range(count)]

    def claim(self, keys: Sequence[int], count: int) -> list[int] | None:
        """Claim the cached blocks of these keys and allocate ``count`` new ones.

        Returns None and changes nothing if too few are free. Every key must be ``cached``.
        """
        hits = [self._by_key[key] for key in keys]
        idle = sum(1 for block in hits if not self._users[block])
        if count > len(self._free) - idle:
            return None
        for block in hits:
            if not self._users[block]:
                del self._free[block]
            self._users[block] += 1
        return hits + [self._take_oldest() for _ in range(count)]

    def publish(self, block: int, key: int) -> None:
        """Add a full block to the prefix cache. A second block with the same key is not added."""
        if self.caching and key not in self._by_key:
            self._by_key[key] = block
            self._key[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Release the blocks of a sequence, the last block first.

        So the end of a sequence is reallocated first: other prompts reuse beginnings more often.
        """
        for block in reversed(blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        key = self._key[block]
        if key is not None:
            del self._by_key[key]
            self._key[block] = None
        self._users[block] = 1
        return block
