"""Encodes and decodes the lines of a recording. The file is untrusted: this module checks it."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import Struct

from llmtop import LlmtopError
from llmtop.history.facts import FORMAT, KINDS, Fact, Head, SeriesFact, StepsFact, SummaryFact
from llmtop.history.step_columns import CODED, packed, unpacked
from llmtop.printable import printable
from llmtop.values import replace

LINE_BYTES = 2**20  # the longest line that is read; one sample of an engine has some kilobytes
TEXT_CHARS = 4000  # characters that are kept of one text
LATEST_TIME = 32503680000.0  # the year 3000, unix seconds
LARGEST = 1e15  # absolute values of numbers must be below it
_MOST_NESTED = 24
_MOST_NAMES = 400  # series or columns in one line
_MOST_ROWS = 100_000  # steps in one line

_encode = msgspec.json.Encoder().encode
_KIND = re.compile(rb'^\{"kind":"([a-z_]{1,20})"')
_FACTS: dict[str, type[Fact]] = {str(one.__struct_config__.tag): one for one in KINDS}
# Created at import: msgspec 0.22 crashes when two threads create a class's first decoder at once.
_DECODERS = {kind: msgspec.json.Decoder(one) for kind, one in _FACTS.items()}


class RecordingError(LlmtopError):
    """A recording cannot be read or written."""


class _Kind(Struct):
    kind: str


_kind = msgspec.json.Decoder(_Kind).decode


def encode(fact: Fact) -> bytes:
    """The line of a fact, with its line end."""
    if isinstance(fact, StepsFact):
        fact = packed(fact)
    return _encode(fact) + b"\n"


def kind_of(line: bytes) -> str:
    """The value of the line's field ``kind``; "" where it has none or is not JSON."""
    found = _KIND.match(line)
    if found is not None:
        return found[1].decode()
    try:
        return _kind(line).kind
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def decode(line: bytes) -> Fact | None:
    """The fact of a line; None for a kind that this version does not know.

    The texts of the fact are safe to print, and its numbers are finite and within the bounds of
    this module. Raises RecordingError for an invalid line.
    """
    kind = kind_of(line)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        if kind:
            return None
        raise RecordingError("the recording holds an invalid line")
    if len(line) > LINE_BYTES:
        raise RecordingError(f"the recording holds a line of {len(line):,} bytes")
    try:
        if line.isascii() and b"\\" not in line and b"\x7f" not in line:
            # JSON allows no raw control character, so this line has printable ASCII only.
            fact: Fact = decoder.decode(line)
        else:
            fact = decoder.decode(_encode(_cleaned(msgspec.json.decode(line))))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = printable(str(error), 200)
        raise RecordingError(f"the recording holds a damaged line ({kind}: {why})") from error
    if not 0 <= fact.time < LATEST_TIME:
        raise RecordingError(f"the recording holds an impossible time ({kind})")
    return _checked(fact)


def check_format(head: Head, path: str) -> None:
    """Raise RecordingError for a format that this version does not read. path: for the message."""
    if head.format > FORMAT:
        by = printable(head.llmtop, 40)
        raise RecordingError(
            f"{path} has format {head.format}, written by llmtop {by}; this llmtop reads formats "
            f"up to {FORMAT}",
            "update llmtop to open it",
        )


def _cleaned(value: Any, depth: int = 0) -> Any:
    if depth > _MOST_NESTED:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        # Line ends are kept: the end of a log (``log_tail``) has several lines.
        return "\n".join(printable(line) for line in value[:TEXT_CHARS].split("\n"))
    if isinstance(value, list):
        return [_cleaned(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {printable(key, 200): _cleaned(one, depth + 1) for key, one in value.items()}
    return value


def _checked(fact: Fact) -> Fact:
    if isinstance(fact, SeriesFact):
        if len(fact.values) > _MOST_NAMES:
            raise RecordingError("the recording holds a line with too many series")
        if all(one is None or -LARGEST < one < LARGEST for one in fact.values.values()):
            return fact
        raise RecordingError("the recording holds an impossible number in a chart")
    if isinstance(fact, SummaryFact):
        numbers = [n for one in fact.values.values() for n in (one.low, one.mean, one.high)]
        if len(fact.values) > _MOST_NAMES or not all(map(_is_sane, numbers)):
            raise RecordingError("the recording holds an impossible summary")
    return _checked_steps(fact) if isinstance(fact, StepsFact) else fact


def _checked_steps(fact: StepsFact) -> StepsFact:
    rows = {len(column) for column in fact.columns.values()}
    names = len(fact.columns) + len(fact.same)
    if names > _MOST_NAMES or len(rows) > 1 or max(rows, default=0) > _MOST_ROWS:
        raise RecordingError("the recording holds a damaged table of steps")
    if fact.coded not in (0, CODED):
        return replace(fact, columns={}, same={}, coded=0)  # a later version wrote it
    try:
        found = unpacked(fact)
    except (ValueError, OverflowError):
        raise RecordingError("the recording holds an impossible table of steps") from None
    for column in found.columns.values():
        if not all(one is None or -LARGEST < one < LARGEST for one in column):
            raise RecordingError("the recording holds an impossible number of a step")
    return found


def _is_sane(number: float) -> bool:
    return math.isfinite(number) and abs(number) < LARGEST
