"""Latencies as an interval log of HdrHistogram (``.hlog``).

The form is that of HdrHistogram 2.x: a log of version 1.3, each histogram in the V2 encoding,
deflated, in base64. Written from its public description and checked against another implementation.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

DIGITS = 3  # significant: 0.1 %
_MAGNITUDE = 11  # 2**11 sub-buckets: the first power of two that keeps 2 * 10**3 values apart
LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000  # an hour, more than any time-out of ours
_COOKIE = 0x1C849303 | 0x10
_DEFLATED_COOKIE = 0x1C849304 | 0x10
_HEAD = struct.Struct(">iiiiqqd")  # cookie, payload, offset, digits, lowest, highest, ratio


class Interval(Struct, frozen=True):
    """What ended in a stretch of a run. begin, end: seconds after the log's start.

    latencies: by name (``ttft``), seconds.
    """

    begin: float
    end: float
    latencies: Mapping[str, Iterable[float]]


def index(nanoseconds: int) -> int:
    """Where a value is counted: exact below 2,048, then 1,024 to an octave."""
    shift = max(0, nanoseconds.bit_length() - _MAGNITUDE)
    return (shift << (_MAGNITUDE - 1)) + (nanoseconds >> shift)


def encode(nanoseconds: Iterable[int]) -> str:
    """One histogram, V2, deflated, in base64. Values beyond an hour count as an hour."""
    counts = Counter(index(min(max(0, value), HIGHEST_NS)) for value in nanoseconds)
    payload, at = bytearray(), 0
    for where in sorted(counts):
        if where > at:
            payload += _zigzag(at - where)  # so many buckets without a value
        payload += _zigzag(counts[where])
        at = where + 1
    head = _HEAD.pack(_COOKIE, len(payload), 0, DIGITS, LOWEST_NS, HIGHEST_NS, 1.0)
    deflated = zlib.compress(head + payload)
    whole = struct.pack(">ii", _DEFLATED_COOKIE, len(deflated)) + deflated
    return base64.b64encode(whole).decode("ascii")


def log(intervals: Iterable[Interval], *, start: float, comments: Iterable[str] = ()) -> str:
    """A whole log: one line for each latency of each interval, tagged with its name.

    start: unix seconds. Values are nanoseconds, Interval_Max is in milliseconds, as in all of
    these logs. comments: lines for a person; what would end a line is left out.
    """
    lines = [f"#{' '.join(comment.split())}" for comment in comments]
    lines += [
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {start:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for interval in intervals:
        for name, seconds in interval.latencies.items():
            values = [round(value * 1e9) for value in seconds]
            if not values:
                continue
            length = interval.end - interval.begin
            lines.append(
                f"Tag={name},{interval.begin:.3f},{length:.3f},{max(values) / 1e6:.3f},"
                f"{encode(values)}"
            )
    return "\n".join(lines) + "\n"


def _zigzag(value: int) -> bytes:
    """ZigZag LEB128, at most nine bytes: the ninth holds eight bits."""
    left = (value << 1) ^ (value >> 63)
    out = bytearray()
    while left >= 0x80 and len(out) < 8:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)
