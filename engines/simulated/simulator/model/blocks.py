"""The paged KV cache: blocks with owners, a prefix cache over them, an LRU of the free ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """Blocks of KV cache, counted by how many requests use each.

    An unused block is free, and keeps its content until it is assigned to another request:
    the least recently freed one first. A free block whose content is known can be claimed again by
    its key, which is what prefix caching is.
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
        """Blocks that some request uses."""
        return self.total - len(self._free)

    def cached(self, key: int) -> bool:
        """Whether a block with this content is there, used or free."""
        return key in self._by_key

    def allocate(self, count: int) -> list[int] | None:
        """That many blocks of unknown content for one user, or None when there are too few."""
        if count > len(self._free):
            return None
        return [self._take_oldest() for _ in range(count)]

    def claim(self, keys: Sequence[int], count: int) -> list[int] | None:
        """The cached blocks of these keys and ``count`` new ones; None, and nothing taken, if not.

        Every key must be ``cached``.
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
        """Make a full block findable. A second block of the same content stays private."""
        if self.caching and key not in self._by_key:
            self._by_key[key] = block
            self._key[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Give blocks back. The end of a sequence goes first: beginnings are found again more."""
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
