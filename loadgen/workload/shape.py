"""Load shapes: the level as a pure function of time, and the text that describes it."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.trace import ReadTrace, Size, Trace
from llmtop.loadgen.workload.trace import read as read_trace
from llmtop.printable import clean

MAX_LEVEL = 1_000_000.0  # streams, or requests a second: far above what one machine can send
MAX_SECONDS = 30 * 86_400.0
MIN_SPEED, MAX_SPEED = 0.001, 1_000_000.0  # of a trace; one in milliseconds is 1000 times as fast

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = rf"{_NUMBER}(?:ms|s|m|h)"
_RANGE = rf"(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})"


class Piece(Struct, frozen=True):
    """One part of a shape. seconds: how long it lasts, infinity for an endless one.

    at: seconds since the piece began -> level. end: the level that a following ``hold 20s`` keeps.
    crest: the highest level, where that is neither at the beginning nor at the end. recorded: the
    arrivals themselves, where the level is only how many there are a second.
    """

    seconds: float
    at: Callable[[float], float]
    end: float
    crest: float = 0.0
    recorded: Trace | None = None


class Shape(Struct, frozen=True):
    """A sequence of pieces. After the last finite piece the level is 0: the shape has ended."""

    text: str
    pieces: tuple[Piece, ...]
    starts: tuple[float, ...]

    @property
    def duration(self) -> float | None:
        """Seconds until the shape ends, None when it never does."""
        end = self.starts[-1] + self.pieces[-1].seconds
        return end if math.isfinite(end) else None

    def level(self, time: float) -> float:
        """The level at ``time`` seconds after the shape began; 0 before and after it."""
        if time < 0:
            return 0.0
        index = bisect_right(self.starts, time) - 1
        piece, since = self.pieces[index], time - self.starts[index]
        return piece.at(since) if since < piece.seconds else 0.0

    def flow(self, time: float) -> float:
        """The level, but 0 within a recorded trace: its arrivals are ``recorded``, not drawn."""
        piece = self.pieces[max(0, bisect_right(self.starts, time) - 1)]
        return 0.0 if piece.recorded is not None else self.level(time)

    @property
    def is_recorded(self) -> bool:
        """Whether a part of it is a recorded trace, which only an open loop can follow."""
        return any(piece.recorded is not None for piece in self.pieces)

    def recorded(self, begin_ns: int, end_ns: int) -> list[tuple[int, Size]]:
        """Recorded arrivals within a stretch of the shape's time, and how long they were."""
        found: list[tuple[int, Size]] = []
        for start, piece in zip(self.starts, self.pieces, strict=True):
            if piece.recorded is not None:
                base = int(start * NS)
                end = min(end_ns - base, int(piece.seconds * NS))
                marks = piece.recorded.between(max(0, begin_ns - base), end)
                found.extend((base + at, size) for at, size in marks)
        return found

    @property
    def highest(self) -> float:
        """The highest level that the shape ever asks for."""
        return max(max(piece.at(0.0), piece.end, piece.crest) for piece in self.pieces)

    def running(self, time: float) -> bool:
        """Whether the shape has not ended at ``time``."""
        return self.duration is None or time < self.duration


def parse(text: str, trace: ReadTrace = read_trace) -> Shape:
    """Read a shape such as ``ramp 1..256 over 60s, hold 20s, burst 512 for 5s``.

    trace: reads the file of a piece such as ``trace FILE speed 2 for 60s``. Raises UsageError that
    names the piece that it cannot read and shows how one is written.
    """
    pieces: list[Piece] = []
    for part in _parts(text):
        if pieces and math.isinf(pieces[-1].seconds):
            raise UsageError(
                f"'{_quote(part)}' in the load shape is never reached: the piece before has no end",
                "give it a length, for example: hold 32 for 20s",
            )
        found = _TRACE.fullmatch(part)
        pieces.append(
            _recorded(found, part, trace)
            if found
            else _piece(part.lower(), pieces[-1].end if pieces else None)
        )
    starts = tuple(accumulate((p.seconds for p in pieces[:-1]), initial=0.0))
    return Shape(text, tuple(pieces), starts)


def parse_duration(text: str) -> float:
    """Seconds of ``500ms``, ``20s``, ``2m`` or ``1h``; UsageError otherwise."""
    if not re.fullmatch(_DURATION, text.strip()):
        raise UsageError(f"'{_quote(text)}' is not a duration", "write 500ms, 20s, 2m or 1h")
    return _seconds(text.strip(), text)


def anchored(text: str, folder: Path) -> str:
    """The shape with the files of its traces looked for in ``folder``, not in the present one."""

    def anchor(part: str) -> str:
        found = _TRACE.fullmatch(part)
        if found is None:
            return part
        path = folder / (found["quoted"] or found["plain"])
        return f'trace "{path}"{part[found.end("file") :]}'

    return ", ".join(anchor(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    """The pieces' texts. A comma within quotes belongs to the name of a file."""
    outside = r',(?=(?:[^"]*"[^"]*")*[^"]*$)'
    return [part.strip() for part in re.split(outside, text)]


def _recorded(found: re.Match[str], part: str, trace: ReadTrace) -> Piece:
    speed = float(found["speed"] or 1)
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise UsageError(
            f"the speed of a trace is {MIN_SPEED:g} to {MAX_SPEED:,g}, not that of '{part}'"
        )
    limit = _seconds(found["length"].lower(), part) if found["length"] else None
    recorded = trace(found["quoted"] or found["plain"], speed, limit)
    seconds = limit or _bounded(recorded.seconds, part)
    return Piece(seconds, recorded.level, recorded.rate, recorded.crest, recorded)


def _hold(found: re.Match[str], before: float | None, part: str) -> Piece:
    level = _level(found["level"], part)
    seconds = _seconds(found["length"], part) if found["length"] else math.inf
    return Piece(seconds, lambda t: level, level)


def _keep(found: re.Match[str], before: float | None, part: str) -> Piece:
    if before is None:
        raise UsageError(
            f"'{_quote(part)}' at the start of a load shape has a duration but no level",
            "for example: hold 32 for 20s",
        )
    level = before
    return Piece(_seconds(found["length"], part), lambda t: level, level)


def _ramp(found: re.Match[str], before: float | None, part: str) -> Piece:
    low, high = _level(found["low"], part), _level(found["high"], part)
    seconds = _seconds(found["length"], part)
    return Piece(seconds, lambda t: low + (high - low) * t / seconds, high)


def _staircase(found: re.Match[str], before: float | None, part: str) -> Piece:
    low, high = _level(found["low"], part), _level(found["high"], part)
    step, each = _level(found["step"], part), _seconds(found["length"], part)
    if step == 0:
        raise UsageError(f"a step of 0 in '{_quote(part)}' has no end", _hint("staircase"))
    rise = math.copysign(step, high - low)
    count = math.ceil(abs(high - low) / step) + 1

    def at(time: float) -> float:
        index = min(int(time / each), count - 1)
        return high if index == count - 1 else low + rise * index

    return Piece(_bounded(count * each, part), at, high)


def _double(found: re.Match[str], before: float | None, part: str) -> Piece:
    low, high = _level(found["low"], part), _level(found["high"], part)
    each = _seconds(found["length"], part)
    if low == 0 or high == 0:
        raise UsageError(f"doubling cannot leave or reach 0 in '{_quote(part)}'", _hint("double"))
    factor = 2.0 if high >= low else 0.5
    # The small number keeps a rounding error from adding a step: 1..8 is 1, 2, 4, 8.
    count = math.ceil(abs(math.log2(high / low)) - 1e-9) + 1

    def at(time: float) -> float:
        index = min(int(time / each), count - 1)
        return high if index == count - 1 else low * factor**index

    return Piece(_bounded(count * each, part), at, high)


def _sine(found: re.Match[str], before: float | None, part: str) -> Piece:
    low, high = _level(found["low"], part), _level(found["high"], part)
    period = _seconds(found["period"], part)
    seconds = _seconds(found["length"], part) if found["length"] else math.inf

    def at(time: float) -> float:
        return low + (high - low) * (1 - math.cos(2 * math.pi * time / period)) / 2

    return Piece(seconds, at, at(seconds) if math.isfinite(seconds) else low, max(low, high))


_TRACE = re.compile(
    rf"""trace\s+(?P<file>"(?P<quoted>[^"]+)"|(?P<plain>[^\s"]+))"""
    rf"(?:\s+speed\s+(?P<speed>{_NUMBER}))?(?:\s+for\s+(?P<length>{_DURATION}))?",
    re.IGNORECASE,
)
_Build = Callable[[re.Match[str], float | None, str], Piece]
_FORMS: tuple[tuple[str, str, _Build], ...] = (
    ("hold", rf"hold\s+(?P<length>{_DURATION})", _keep),
    (
        "hold",
        rf"(?:hold\s+)?(?P<level>{_NUMBER})(?:\s+(?:for|over)\s+(?P<length>{_DURATION}))?",
        _hold,
    ),
    ("ramp", rf"ramp\s+{_RANGE}\s+over\s+(?P<length>{_DURATION})", _ramp),
    (
        "staircase",
        rf"staircase\s+{_RANGE}\s+step\s+(?P<step>{_NUMBER})\s+every\s+(?P<length>{_DURATION})",
        _staircase,
    ),
    ("double", rf"double\s+{_RANGE}\s+every\s+(?P<length>{_DURATION})", _double),
    ("burst", rf"(?:burst|spike)\s+(?P<level>{_NUMBER})\s+for\s+(?P<length>{_DURATION})", _hold),
    (
        "sine",
        rf"sine\s+{_RANGE}\s+period\s+(?P<period>{_DURATION})(?:\s+for\s+(?P<length>{_DURATION}))?",
        _sine,
    ),
)
_COMPILED = tuple((re.compile(form), build) for _, form, build in _FORMS)
_EXAMPLES = {
    "hold": "hold 32 for 20s",
    "ramp": "ramp 1..256 over 60s",
    "staircase": "staircase 8..64 step 8 every 20s",
    "double": "double 1..256 every 15s",
    "burst": "burst 512 for 5s",
    "spike": "spike 512 for 5s",
    "sine": "sine 8..64 period 30s for 2m",
    "trace": "trace arrivals.csv speed 2 for 10m",
}


def _piece(part: str, before: float | None) -> Piece:
    for form, build in _COMPILED:
        if found := form.fullmatch(part):
            return build(found, before, part)
    word = part.split(" ", 1)[0]
    if not part:
        raise UsageError("an empty piece in the load shape", _hint("ramp"))
    raise UsageError(f"cannot read '{_quote(part)}' in the load shape", _hint(word))


def _hint(word: str) -> str:
    if word in _EXAMPLES:
        return f"for example: {_EXAMPLES[word]}"
    return f"pieces are {', '.join(_EXAMPLES)}; for example: {_EXAMPLES['ramp']}, hold 20s"


def _level(text: str, part: str) -> float:
    level = float(text)
    if level > MAX_LEVEL:
        raise UsageError(f"{text} in '{_quote(part)}' is above {MAX_LEVEL:,.0f}, the highest level")
    return level


def _seconds(text: str, part: str) -> float:
    number = re.match(_NUMBER, text)
    assert number is not None
    return _bounded(float(number[0]) * _UNITS[text[number.end() :]], part)


def _bounded(seconds: float, part: str) -> float:
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"a piece must last above 0 seconds, at most 30 days: '{_quote(part)}'")
    return seconds


def _quote(part: str) -> str:
    return clean(part.strip(), 60)
