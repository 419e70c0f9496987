"""The protobuf format, which native histograms need.

Each message is a ``MetricFamily`` of ``io.prometheus.client`` (prometheus/client_model,
metrics.proto) after its length. A histogram has both classic and native buckets.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

from llmtop.exporter.buckets import SCHEMA, ZERO_S, classic, native
from llmtop.exporter.families import Distribution, Family, Kind, Labels

CONTENT_TYPE = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)
_COUNTER, _GAUGE, _HISTOGRAM = 0, 1, 4  # MetricType
_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info"}


def delimited(families: Iterable[Family]) -> bytes:
    """All families, each after its length as a varint."""
    found = bytearray()
    for family in families:
        message = _family(family)
        found += _varint(len(message)) + message
    return bytes(found)


def _family(family: Family) -> bytes:
    kind = {Kind.COUNTER: _COUNTER, Kind.HISTOGRAM: _HISTOGRAM}.get(family.kind, _GAUGE)
    name = family.name + _SUFFIX.get(family.kind, "")
    parts = [_text(1, name), _text(2, family.help), _whole(3, kind)]
    for sample in family.samples:
        if math.isfinite(sample.value):
            value = _bytes(3 if kind == _COUNTER else 2, _double(1, sample.value))
            parts.append(_bytes(4, _labels(sample.labels) + value))
    for one in family.distributions:
        parts.append(_bytes(4, _labels(one.labels) + _bytes(7, _histogram(one))))
    return b"".join(parts)


def _labels(labels: Labels) -> bytes:
    pairs = (_text(1, name) + _text(2, value) for name, value in labels.items())
    return b"".join(_bytes(1, pair) for pair in pairs)


def _histogram(one: Distribution) -> bytes:
    histogram = one.histogram
    parts = [_whole(1, histogram.count), _double(2, histogram.sum_s)]
    for bound, count in classic(histogram)[:-1]:
        parts.append(_bytes(3, _whole(1, count) + _double(2, float(bound))))
    zero, buckets = native(histogram)
    parts += [_whole(5, _zigzag(SCHEMA)), _double(6, ZERO_S), _whole(7, zero)]
    spans, deltas = _sparse(buckets)
    parts += [_bytes(12, span) for span in spans]
    if deltas:
        parts.append(_bytes(13, b"".join(_varint(_zigzag(delta)) for delta in deltas)))
    elif not zero:
        # One span of length 0 marks an empty histogram as native.
        parts.append(_bytes(12, _whole(1, _zigzag(0)) + _whole(2, 0)))
    return b"".join(parts)


def _sparse(buckets: dict[int, int]) -> tuple[list[bytes], list[int]]:
    """Native buckets as spans (gap to the span before, length) and differences of counts."""
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    last: int | None = None
    before = 0  # count of the bucket before
    for index in sorted(buckets):
        if last is not None and index == last + 1:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index if last is None else index - last - 1, 1))
        deltas.append(buckets[index] - before)
        before, last = buckets[index], index
    return [_whole(1, _zigzag(offset)) + _whole(2, size) for offset, size in spans], deltas


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
