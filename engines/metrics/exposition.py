"""Parses Prometheus exposition text. Samples are looked up by name.

An engine's text has 50 to 70 KB a second. Less than half of it is the engine's own numbers, and
only the values change. So a ``Parser`` skips all other lines, parses each series (name and labels)
once, and caches it while it appears in each new text. The remaining work is one look-up and one
float for each line. ``prometheus_client`` parses the series with escapes only, which engines seldom
write: it imports servers, which take 3 MiB.

The text is hostile: an invalid line is skipped, a value that is not a number or out of bounds is
missing, and of two lines for one series the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.conditions import UNKNOWN_ENGINE, Condition
from llmtop.engines.metrics.routers import has_samples

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

MAX_TEXT = 8 * 1024 * 1024  # characters; sixteen data-parallel vLLM engines make one million
MAX_LINE = 4096  # characters; vLLM's cache_config_info, the longest, has 1,200
MAX_SERIES = 20_000
# Characters of new series parsed in one text: sixteen engines have 650,000. The worst known text
# takes 0.8 s with this limit, and 7 s without it.
MAX_NEW = 1_000_000
# The part of this budget that returns with each text: a text with new series every second must not
# delay key presses of the screen, which shares the thread.
NEW_AGAIN = MAX_NEW // 10
MAX_VALUE = 1e30  # so that no sum or product of values overflows

# The only useful foreign line: it shows a restart (vLLM has it, SGLang does not).
_ALWAYS = "process_start_time_seconds"


_Series = tuple[str, Mapping[str, str]]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"')
_PLAIN = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\{{({_LABEL.pattern}(?:,{_LABEL.pattern})*)\}}")
# A number, so that it cannot begin after a quote that ends another label's value.
_BOUND = re.compile(r'(?<=[{,])le="([0-9.e+-]+|\+Inf)"')


class ScrapeError(LlmtopError):
    """An engine's numbers could not be read.

    status: the HTTP status, None without one. condition: the corresponding finding.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        status: int | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.condition = condition


class Exposition:
    """The parsed text, an ``adapter.MetricText``. Names are sample names: ``_total`` is in them.

    renamed: the foreign prefix of the names that were read as the engine's, "" for none.
    """

    __slots__ = ("_series", "renamed")

    def __init__(
        self, series: Mapping[str, list[tuple[Mapping[str, str], float]]], renamed: str = ""
    ) -> None:
        self._series = series
        self.renamed = renamed

    def __len__(self) -> int:
        return sum(map(len, self._series.values()))

    @property
    def all(self) -> Mapping[str, list[tuple[Mapping[str, str], float]]]:
        """All series by sample name."""
        return self._series

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""
        wanted = labels.items()
        found = [value for have, value in self._series.get(name, ()) if wanted <= have.items()]
        return sum(found) if found else None

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels, in the order of the text."""
        return tuple(self._series.get(name, ()))


class Parser:
    """Parses one engine's text repeatedly. Caches only the series of the last text.

    prefixes: of the lines to parse. renamed: other prefixes in their place, if a collector renamed
    all series.
    """

    def __init__(
        self, prefixes: tuple[str, ...], renamed: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._prefixes = (*prefixes, *renamed, _ALWAYS)
        self._renamed = renamed
        self._known: dict[str, _Series | None] = {}
        self._labels: dict[str, Mapping[str, str]] = {}  # by their text, during one parse
        self._left = MAX_NEW  # characters of new series that may still be parsed
        self._lines: list[str] = []
        self._blocks: list[str] = []  # the engine's own lines of the last text, as blocks
        self._found = Exposition({})

    def parse(self, text: str) -> Exposition:
        """Parse the text.

        Raises ScrapeError for another kind of text (a web page, JSON) or one above the limits. An
        empty text is valid: the engine has no numbers yet. If no line of the engine has changed,
        it returns the same Exposition, so an idle engine costs almost nothing.
        """
        if len(text) > MAX_TEXT:
            raise ScrapeError(f"the metrics are larger than {MAX_TEXT // 2**20} MiB")
        if self._blocks and self._is_unchanged(text):
            return self._found
        prefixes = self._prefixes
        lines = [line for line in text.split("\n") if line.startswith(prefixes)]
        if lines and lines == self._lines:
            self._blocks = self._cut(text)
            return self._found
        self._blocks = []
        found = self._series_of(lines)
        if not found:
            _refuse_what_is_not_metrics(text, lines)
        self._lines, self._found = lines, under_own_names(found, self._renamed)
        return self._found

    def _series_of(self, lines: list[str]) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        """The labels and values of these lines by sample name, in the order of the text.

        Remembers the series of exactly these lines for the next text. ScrapeError above the bounds.
        """
        known: dict[str, _Series | None] = {}
        values: dict[str, float] = {}
        self._left = min(MAX_NEW, self._left + NEW_AGAIN)
        for line in lines:
            if len(line) > MAX_LINE:
                continue
            head, number = self._head(line)
            series = known[head] = self._known[head] if head in self._known else self._new(head)
            if len(known) > MAX_SERIES or self._left < 0:
                self._labels = {}
                self._known = known  # a valid large text gets further the next time
                raise ScrapeError(
                    f"the metrics have more than {MAX_SERIES:,} series, or endless ones"
                )
            if series is None or head in values:
                continue
            if (value := _value(number)) is not None:
                values[head] = value
        self._known, self._labels = known, {}
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for head, value in values.items():
            if (series := known[head]) is not None:
                found.setdefault(series[0], []).append((series[1], value))
        return found

    def _head(self, line: str) -> tuple[str, str]:
        """The text of a line's series, and its value; fast for a cached series."""
        head, _, number = line.rpartition(" ")
        return (head, number) if head in self._known else _split(line)

    def _new(self, head: str) -> _Series | None:
        self._left -= len(head)
        return _take_apart(head, self._labels)

    def _cut(self, text: str) -> list[str]:
        """The blocks of complete lines that contain only the engine's lines and comments."""
        blocks: list[list[str]] = [[]]
        for line in text.split("\n"):
            if line.startswith(("#", *self._prefixes)):
                blocks[-1].append(f"{line}\n")
            elif blocks[-1]:
                blocks.append([])
        whole = ["".join(block) for block in blocks]
        return [block for block in whole if self._has_own(block)]

    def _is_unchanged(self, text: str) -> bool:
        """Whether these blocks are all of the engine's lines in a text; False if in doubt."""
        at = 0
        for block in self._blocks:
            found = text.find(block, at)
            whole = found == 0 or (found > 0 and text[found - 1] == "\n")
            if not whole or self._has_own(text[at:found]):
                return False
            at = found + len(block)
        return not self._has_own(text[at:])

    def _has_own(self, text: str) -> bool:
        return any(line.startswith(self._prefixes) for line in text.split("\n"))


def under_own_names(
    found: Mapping[str, list[tuple[Mapping[str, str], float]]], renamed: Mapping[str, str]
) -> Exposition:
    """The series by the engine's own names.

    Renamed series count only if no series has an own name: else they are another program's.
    """
    for other, own in renamed.items():
        if any(name.startswith(own) for name in found):
            continue
        if any(name.startswith(other) for name in found):
            return Exposition(
                {
                    own + name.removeprefix(other) if name.startswith(other) else name: series
                    for name, series in found.items()
                },
                other,
            )
    return Exposition(found)


def _value(number: str) -> float | None:
    """The value of a line; None if it is not a number or out of bounds."""
    # Python also accepts digits of other scripts and underscores.
    if not number.isascii() or "_" in number:
        return None
    try:
        value = float(number)
    except ValueError:
        return None
    return value if -MAX_VALUE < value < MAX_VALUE else None  # also None for NaN


def _split(line: str) -> tuple[str, str]:
    """A line's series and its value. A time stamp after the value is dropped."""
    cut = line.rfind("}") + 1 or max(line.find(" "), 0)
    number, _, _ = line[cut:].strip().partition(" ")
    return line[:cut], number


@cache
def _families() -> Callable[[str], Iterable[Metric]]:
    """``prometheus_client``'s parser, imported on first use: the package also imports servers."""
    from prometheus_client.parser import text_string_to_metric_families

    return text_string_to_metric_families


def _take_apart(head: str, written: dict[str, Mapping[str, str]]) -> _Series | None:
    """Name and labels of one series; None when malformed, or a ``_created`` time stamp.

    written: parsed labels by their text without the bucket's bound. Of vLLM's 317 series only 26
    differ in more than the bound. Without this cache the others take nine tenths of the time until
    the first numbers.
    """
    name, brace, labels = head.partition("{")
    name = name.rstrip()
    if name.endswith("_created"):
        return None
    form = brace + labels
    bound = _BOUND.search(form)
    if bound is not None:
        form = f"{form[: bound.start()]}\n{form[bound.end() :]}"  # no line contains a newline
    known = written.get(form)
    if known is not None and _NAME.fullmatch(name):
        return name, known if bound is None else MappingProxyType({**known, "le": bound[1]})
    found = _plain(head) or _parsed(head)
    if found is None or found[0] != name:  # in the newer syntax the name may be among the labels
        return None
    if bound is None or (found[1].get("le") == bound[1] and "le=" not in form):
        written[form] = MappingProxyType(found[1])
    return name, MappingProxyType(found[1])


def _plain(head: str) -> tuple[str, dict[str, str]] | None:
    """Name and labels as engines write them, without escapes; None of any other form."""
    name, brace, labels = head.partition("{")
    if not brace:
        return (name, {}) if _NAME.fullmatch(name) else None
    if _PLAIN.fullmatch(head) is None:
        return None
    pairs = _LABEL.findall(labels)
    found = dict(pairs)
    return (name, found) if len(found) == len(pairs) and "__name__" not in found else None


def _parsed(head: str) -> tuple[str, dict[str, str]] | None:
    """Name and labels by ``prometheus_client``; None when malformed."""
    try:
        (sample,) = next(iter(_families()(f"{head} 0\n"))).samples
    except (ValueError, IndexError, KeyError, StopIteration):
        return None
    return sample.name, sample.labels


def _refuse_what_is_not_metrics(text: str, lines: list[str]) -> None:
    """ScrapeError for a text without a usable line, unless it is a metrics page without samples."""
    if any(len(line) > MAX_LINE for line in lines):
        raise ScrapeError(
            f"all metrics lines are longer than {MAX_LINE:,} characters",
            "give the engine a shorter model name; each line repeats it",
        )
    start = text.lstrip()
    if start and not start.startswith(("# HELP ", "# TYPE ", "# EOF")):
        if has_samples(text):
            raise ScrapeError(*UNKNOWN_ENGINE)
        raise ScrapeError(
            "the answer is not metrics text",
            "check the URL: this is not the metrics page of an LLM engine",
        )
