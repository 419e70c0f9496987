"""Recorded arrivals: a file with the moments of requests, and perhaps their lengths."""

from __future__ import annotations

import csv
import json
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain

from msgspec import Struct

from llmtop import UsageError
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.lengths import MAX_TOKENS

MAX_ARRIVALS = 1_000_000  # 16 MB in each process that follows them
MAX_LINE = 64 * 1024
AFTER_NS = 1_000_000  # a trace ends this long after its last arrival, so that it is still sent

# Of the Azure LLM inference traces of 2023 and 2024, of the usage that servers send, and plain.
_MOMENT = ("timestamp", "time", "arrival")
_PROMPT = ("contexttokens", "prompt_tokens", "input_tokens", "input_length")
_OUTPUT = ("generatedtokens", "output_tokens", "completion_tokens", "output_length")

Size = tuple[int, int]
"""Tokens of a prompt and of its answer; 0: not given."""


class Trace(Struct, frozen=True):
    """Arrivals in order. at_ns: after the first one, which is at 0. prompt, output: tokens."""

    at_ns: array[int]
    prompt: array[int]
    output: array[int]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return (self.at_ns[-1] + AFTER_NS) / NS if self.at_ns else 0.0

    @property
    def crest(self) -> float:
        """The most arrivals within one second that begins with a whole second."""
        most = here = second = 0
        for at in self.at_ns:
            if at // NS != second:
                second, here = at // NS, 0
            here += 1
            most = max(most, here)
        return float(most)

    @property
    def rate(self) -> float:
        """Arrivals a second over all of it."""
        return len(self.at_ns) / max(1.0, self.seconds)

    def level(self, second: float) -> float:
        """Arrivals in the whole second that this moment lies in."""
        begin = int(second) * NS
        return float(bisect_left(self.at_ns, begin + NS) - bisect_left(self.at_ns, begin))

    def between(self, begin_ns: int, end_ns: int) -> Iterator[tuple[int, Size]]:
        """Arrivals from one moment up to, not including, another, and how long they were."""
        first, last = bisect_left(self.at_ns, begin_ns), bisect_left(self.at_ns, end_ns)
        for place in range(first, last):
            yield self.at_ns[place], (self.prompt[place], self.output[place])


ReadTrace = Callable[[str, float, float | None], Trace]


def read(path: str, speed: float = 1.0, seconds: float | None = None) -> Trace:
    """Read a trace, ``speed`` times as fast as it was recorded, at most ``seconds`` of it.

    One arrival a line: seconds; or a JSON object with a timestamp in seconds (a date and time in
    ISO 8601 is taken too) and perhaps prompt and output tokens; or CSV with a head, as the Azure
    LLM inference traces are. Raises UsageError that names file and line.
    """
    try:
        known = os.stat(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return _read(path, speed, seconds, known.st_mtime_ns, known.st_size)


def unread(path: str, speed: float = 1.0, seconds: float | None = None) -> Trace:
    """Stands for a trace whose file is not to be looked at yet: one arrival at 0."""
    return Trace(array("q", [0]), array("q", [0]), array("q", [0]))


@lru_cache(maxsize=4)
def _read(path: str, speed: float, seconds: float | None, mtime_ns: int, size: int) -> Trace:
    trace = Trace(array("q"), array("q"), array("q"))
    last_ns = math.inf if seconds is None else seconds * NS
    first: float | None = None
    line = 0
    try:
        with open(path, encoding="utf-8", errors="replace", newline=None) as file:
            for line, moment, prompt, output in _arrivals(path, file):
                first = moment if first is None else first
                at_ns = round((moment - first) / speed * NS)
                if at_ns >= last_ns:
                    break
                if trace.at_ns and at_ns < trace.at_ns[-1]:
                    raise _fault(path, line, "this arrival is earlier than the one before")
                if len(trace.at_ns) == MAX_ARRIVALS:
                    raise UsageError(
                        f"{path} has more than {MAX_ARRIVALS:,} arrivals",
                        "use a part of it, for example: trace FILE for 10m",
                    )
                trace.at_ns.append(at_ns)
                trace.prompt.append(prompt)
                trace.output.append(output)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not trace.at_ns:
        raise UsageError(f"{path} has no arrivals", "write one timestamp in seconds on each line")
    return trace


def _arrivals(path: str, file: Iterator[str]) -> Iterator[tuple[int, float, int, int]]:
    """Line number, seconds, prompt tokens, output tokens."""
    lines = _lines(path, file)
    head = next(lines, None)
    if head is None:
        return
    number, text = head
    if text.startswith("{"):
        for number, text in chain([head], lines):
            yield number, *_from_object(path, number, text)
    elif "," in text or any(word in text.lower() for word in _MOMENT):
        yield from _from_csv(path, number, text, lines)
    else:
        for number, text in chain([head], lines):
            yield number, _moment(path, number, text), 0, 0


def _lines(path: str, file: Iterator[str]) -> Iterator[tuple[int, str]]:
    read_line = file.readline  # type: ignore[attr-defined]
    number = 0
    while text := read_line(MAX_LINE + 1):
        number += 1
        if len(text) > MAX_LINE:
            raise _fault(path, number, "this line is too long for an arrival")
        text = text.strip().removeprefix("\ufeff")
        if text and not text.startswith("#"):
            yield number, text


def _from_object(path: str, number: int, text: str) -> tuple[float, int, int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _fault(path, number, "this is not a JSON object")
    fields = {str(name).lower(): value for name, value in found.items()}
    moment = next((fields[name] for name in _MOMENT if name in fields), None)
    if moment is None:
        raise _fault(path, number, "it has no timestamp")
    at = _moment(path, number, moment)
    return at, _tokens(path, number, fields, _PROMPT), _tokens(path, number, fields, _OUTPUT)


def _from_csv(
    path: str, number: int, head: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, float, int, int]]:
    names = [name.strip().lower() for name in next(csv.reader([head]))]
    if not any(name in _MOMENT for name in names):
        raise _fault(path, number, "the header of this table has no timestamp column")
    for number, text in lines:
        try:
            cells = next(csv.reader([text]))
        except csv.Error:
            cells = []
        if len(cells) != len(names):
            raise _fault(path, number, f"{len(cells)} cells, but the header has {len(names)}")
        fields: dict[str, object] = dict(zip(names, cells, strict=True))
        at = _moment(path, number, next(fields[name] for name in _MOMENT if name in fields))
        prompt = _tokens(path, number, fields, _PROMPT)
        yield number, at, prompt, _tokens(path, number, fields, _OUTPUT)


def _moment(path: str, number: int, given: object) -> float:
    at = math.nan
    if isinstance(given, int | float) and not isinstance(given, bool):
        at = float(given)
    elif isinstance(given, str):
        try:
            at = float(given)
        except ValueError:
            at = _date(given)
    if not abs(at) < 1e11:  # also NaN; beyond, it is no count of seconds
        raise _fault(path, number, f"{_shown(given)} is not a timestamp in seconds")
    return at


def _date(text: str) -> float:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return math.nan
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _tokens(path: str, number: int, fields: dict[str, object], names: tuple[str, ...]) -> int:
    given = next((fields[name] for name in names if fields.get(name) not in (None, "")), None)
    if given is None:
        return 0
    try:
        count = float(given) if isinstance(given, str | int | float) else math.nan
    except ValueError:
        count = math.nan
    if not 0 <= count <= MAX_TOKENS:
        raise _fault(path, number, f"{_shown(given)} is not a number of tokens")
    return int(count)


def _shown(value: object) -> str:
    return repr(str(value)[:40])


def _fault(path: str, number: int, words: str) -> UsageError:
    return UsageError(f"{path}:{number}: {words}", "docs/reference/load.md describes traces")


def _unreadable(path: str, error: Exception) -> UsageError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{path} cannot be read: {why.lower()}", "check the name of the trace")
