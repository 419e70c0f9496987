"""Log-linear histograms in plain memory: one process writes, others read, addition merges."""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from operator import sub

SUB_BITS = 7
SUB = 1 << SUB_BITS  # sub-buckets in an octave
RESOLUTION = 1 / SUB  # relative width of the widest bucket; below 256 us a bucket is 1 us wide
TOP_US = 1_000_000_000  # 1000 s; longer counts as this
_OCTAVE = 8 * SUB  # bytes
_EXACT, _BITS = 2 * SUB, SUB_BITS + 1  # what follows is worked out twice for each token


def bucket(nanoseconds: int) -> int:
    """The bucket of a duration: exact microseconds below 256 us, then 128 to an octave."""
    us = nanoseconds // 1000
    if us < _EXACT:
        return us if us > 0 else 0
    if us > TOP_US:
        us = TOP_US
    shift = us.bit_length() - _BITS
    return shift * SUB + (us >> shift)


BUCKETS = bucket(TOP_US * 1000) + 1


def middle_s(index: int) -> float:
    """The middle of a bucket in seconds."""
    if index < 2 * SUB:
        return (index + 0.5) * 1e-6
    shift = (index >> SUB_BITS) - 1
    low = (index - (shift << SUB_BITS)) << shift
    return (low + (1 << shift) / 2) * 1e-6


def upper_s(index: int) -> float:
    """The upper bound of a bucket in seconds."""
    if index < 2 * SUB:
        return (index + 1) * 1e-6
    shift = (index >> SUB_BITS) - 1
    return ((index - (shift << SUB_BITS) + 1) << shift) * 1e-6


class Histogram:
    """Counts by bucket, cumulative since the start. counts: any mutable row of BUCKETS integers.

    Each bucket only grows and is one aligned 64-bit word, so a reader in another process sees
    every bucket whole; a snapshot may miss the newest few, never invent one.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: memoryview | array[int] | None = None) -> None:
        self.counts = array("q", bytes(8 * BUCKETS)) if counts is None else counts

    def record(self, nanoseconds: int) -> None:
        """Count one duration."""
        self.counts[bucket(nanoseconds)] += 1


def differing(pairs: Sequence[tuple[array[int], array[int]]]) -> slice:
    """The octaves from the first to the last in which two snapshots differ, of any of these pairs:
    most do not."""
    raw = [(new.tobytes(), old.tobytes()) for new, old in pairs]
    octaves = range(0, len(raw[0][0]), _OCTAVE)

    def differs(at: int) -> bool:
        return any(new[at : at + _OCTAVE] != old[at : at + _OCTAVE] for new, old in raw)

    first = next(filter(differs, octaves), None)
    if first is None:
        return slice(0, 0)
    last = next(filter(differs, reversed(octaves)))
    return slice(first // 8, last // 8 + SUB)


def difference(new: array[int], old: array[int]) -> array[int]:
    """What was counted between two snapshots.

    As two long integers with a lane of 64 bits for each bucket, which is several times as fast as
    one by one. A lane that became smaller, of a worker that is gone, borrows from the next one:
    its sign is set.
    """
    grown = _number(new) - _number(old)
    if grown < 0 or grown & _signs(len(new)):
        return array("q", map(sub, new, old))
    return array("q", _lanes(grown, len(new)))


def total(parts: Sequence[array[int]]) -> array[int]:
    """The sum of several counts. None is negative and no sum overflows its lane of 64 bits."""
    if len(parts) == 1:
        return parts[0]
    return array("q", _lanes(sum(map(_number, parts)), len(parts[0])))


def _number(counts: array[int]) -> int:
    return int.from_bytes(counts.tobytes(), sys.byteorder)


def _lanes(number: int, length: int) -> bytes:
    return number.to_bytes(8 * length, sys.byteorder)


@cache
def _signs(length: int) -> int:
    """The sign of each lane."""
    return _number(array("q", [-(2**63)] * length))


def quantiles(
    counts: array[int], shares: Iterable[float], first: int = 0
) -> tuple[list[float | None], int]:
    """The quantiles in seconds (middle of their bucket), and how many observations there are.

    first: the bucket of the first count.
    """
    running = list(accumulate(counts))
    n = running[-1] if running else 0
    if n == 0:
        return [None for _ in shares], 0
    # Nearest rank, as for exact values: the smallest value with at least share * n at or below it.
    ranks = (max(1, math.ceil(share * n)) for share in shares)
    return [middle_s(first + bisect_left(running, rank)) for rank in ranks], n
