"""The HdrHistogram log, held against what another implementation writes for the same values."""

from __future__ import annotations

import base64
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from llmtop.loadgen.export.hdr_log import HIGHEST_NS, Interval, encode, index, log

# hdrhistogram 0.10.8 (PyPI): HdrHistogram(1, 3600 s in ns, 3), the five values, encode().
FIVE = [1_000_000, 2_500_000, 2_500_000, 40_000_000, 7]
THEIRS = "HISTFAAAAC14nJNpmSzMwMDAwwABzFCaEch0M9ixgMH+A0SAl2njOkamwyIsf+2ZAJomB+E="


def unpacked(text: str) -> bytes:
    whole = base64.b64decode(text)
    cookie, size = struct.unpack(">ii", whole[:8])
    assert cookie == 0x1C849314 and size == len(whole) - 8
    return zlib.decompress(whole[8:])


def counts(text: str) -> dict[int, int]:
    """The payload read back: ZigZag LEB128, a negative number is a run of empty buckets."""
    plain = unpacked(text)
    cookie, size = struct.unpack(">ii", plain[:8])
    assert cookie == 0x1C849313 and size == len(plain) - 40
    found, at, value, shift = {}, 0, 0, 0
    for byte in plain[40:]:
        if shift == 56:
            value, more = value | byte << shift, False
        else:
            value, more = value | (byte & 0x7F) << shift, bool(byte & 0x80)
        shift += 7
        if more:
            continue
        number = (value >> 1) ^ -(value & 1)
        value, shift = 0, 0
        if number < 0:
            at -= number
        else:
            found[at] = number
            at += 1
    return found


def test_it_writes_what_another_implementation_writes() -> None:
    assert unpacked(encode(FIVE)) == unpacked(THEIRS)


def test_no_value_is_a_histogram_too() -> None:
    assert counts(encode([])) == {}


@given(st.lists(st.integers(0, 2 * HIGHEST_NS), max_size=50))
def test_every_value_is_counted_within_a_thousandth(values: list[int]) -> None:
    found = counts(encode(values))
    assert sum(found.values()) == len(values)
    for value in values:
        assert index(min(value, HIGHEST_NS)) in found


@given(st.integers(0, HIGHEST_NS))
def test_a_bucket_is_no_wider_than_a_thousandth_of_its_values(value: int) -> None:
    width = max(1, value // 1000)
    assert index(value) <= index(value + width) <= index(value) + 3
    assert index(value + width) > index(value)


def test_the_log_has_a_line_for_each_latency_of_each_interval() -> None:
    text = log(
        [Interval(0, 1, {"ttft": [0.1, 0.2], "tpot": []}), Interval(1, 2.5, {"ttft": [0.4]})],
        start=1795684037.467,
        comments=["two\nlines"],
    )
    lines = text.splitlines()
    assert lines[:4] == [
        "#two lines",
        "#[Histogram log format version 1.3]",
        "#[StartTime: 1795684037.467 (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    assert [line.rsplit(",", 1)[0] for line in lines[4:]] == [
        "Tag=ttft,0.000,1.000,200.000",
        "Tag=ttft,1.000,1.500,400.000",
    ]
    assert sum(counts(lines[4].rsplit(",", 1)[1]).values()) == 2
