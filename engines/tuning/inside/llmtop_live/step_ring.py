"""The last steps of one scheduler, as rows of numbers in a ring buffer that readers copy.

The engine's thread writes one row a step; socket threads copy bytes. There are no locks: a row that
is overwritten during the copy is omitted and counted as lost.
"""

from __future__ import annotations

import base64
import math
import secrets
import struct
from typing import Any

COLUMNS = (
    "seq",
    "end",
    "duration_s",
    "requests",
    "prefills",
    "prefill_tokens",
    "decode_tokens",
    "output_tokens",
    "draft_tokens",
    "accepted_tokens",
    "running",
    "waiting",
    "kv_free_blocks",
    "preempted",
    "context_tokens",
    "schedule_s",
    "update_s",
    "launch_s",
    "host_gap_s",
    "idle_s",
    "cached_tokens",
    "refused",
)
"""Their meanings: docs/reference/live-socket.md."""

UNKNOWN = math.nan
CAPACITY = 16384  # rows: 80 s of an engine with steps of 5 ms, in 2.9 MB
MOST_ROWS = 4096  # in one answer: 0.96 MB in base64, below the protocol's 2 MiB

_ROW = struct.Struct(f"<{len(COLUMNS)}d")


class StepRing:
    """A ring of ``capacity`` rows. Sequence numbers begin with 1.

    boot: changes with each ring, so that a reader detects a restart of the engine.
    """

    def __init__(self, capacity: int = CAPACITY, boot: str = "") -> None:
        self.boot = boot or secrets.token_hex(8)
        self._capacity = capacity
        self._rows = bytearray(capacity * _ROW.size)
        self._next = 1

    @property
    def last(self) -> int:
        """The sequence number of the last recorded step, 0 before the first one."""
        return self._next - 1

    def record(self, *values: float) -> None:
        """Add one step: a value for each of ``COLUMNS`` after seq; ``UNKNOWN`` if unknown.

        Only for the engine's thread. Raises struct.error for a wrong number of values.
        """
        seq = self._next
        _ROW.pack_into(self._rows, (seq % self._capacity) * _ROW.size, seq, *values)
        self._next = seq + 1

    def read(self, since: int | None, limit: int = MOST_ROWS) -> dict[str, Any]:
        """The oldest ``limit`` rows after ``since``; without it the newest. Thread-safe."""
        limit = min(max(limit, 0), MOST_ROWS)
        end = self._next
        wanted = end - limit if since is None else since + 1
        begin = min(max(wanted, self._oldest(end)), end)
        stop = min(begin + limit, end)
        data = self._copy(begin, stop)
        whole = min(
            max(begin, self._oldest(self._next)), stop
        )  # the rest was overwritten meanwhile
        return {
            "boot": self.boot,
            "next": end,
            "lost": 0 if since is None or since >= end else whole - 1 - max(since, 0),
            "columns": list(COLUMNS),
            "rows": stop - whole,
            "data": base64.b64encode(data[(whole - begin) * _ROW.size :]).decode("ascii"),
        }

    def _oldest(self, end: int) -> int:
        # One row less than the capacity: the engine may be writing it now.
        return max(1, end - self._capacity + 1)

    def _copy(self, begin: int, stop: int) -> bytes:
        if stop <= begin:
            return b""
        first, last = begin % self._capacity, stop % self._capacity
        if first < last:
            return bytes(self._rows[first * _ROW.size : last * _ROW.size])
        return bytes(self._rows[first * _ROW.size :] + self._rows[: last * _ROW.size])
