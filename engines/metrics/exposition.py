"""Prometheus exposition text: looked up by sample name, whatever else the text may hold.

An engine's text is 50 to 70 KB a second of which less than half is its own numbers, and it differs
from the one before in its values alone. So a ``Parser`` drops all other lines unread, has
``prometheus_client`` take a series (name and labels) apart once, and remembers it for as long as
each new text still has it: what is left to do is one look-up and one float a line.

The text is hostile: a line that cannot be understood is skipped, a value that is no number or
beyond all bounds counts as missing, of two lines for one series the first wins.
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
# Characters of series taken apart for one text: sixteen engines have 650,000. The worst text found
# takes 0.8 s for this many; without the bound it took 7 s.
MAX_NEW = 1_000_000
# What of it comes back with each further text: one whose series are new every second must not keep
# the screen, which shares the thread, from its keys.
NEW_AGAIN = MAX_NEW // 10
MAX_VALUE = 1e30  # so that no sum or product of what is read overflows

# The one foreign line worth having: it reports a restart (vLLM has it, SGLang has not).
_ALWAYS = "process_start_time_seconds"


_Series = tuple[str, Mapping[str, str]]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# A number, so that it cannot begin behind a quote that ends another label's value.
_BOUND = re.compile(r'(?<=[{,])le="([0-9.e+-]+|\+Inf)"')


class ScrapeError(LlmtopError):
    """An engine's numbers could not be had.

    status: the HTTP status, None when none came. condition: the finding that it amounts to.
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

    renamed: how the names begin that were taken for the engine's own, "" when they are its own.
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
    """Parses one engine's text again and again. Keeps no more than the series of the last text.

    prefixes: how the lines begin that are worth it. renamed: how they may begin in place of one of
    these, where something has renamed all of them.
    """

    def __init__(
        self, prefixes: tuple[str, ...], renamed: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._prefixes = (*prefixes, *renamed, _ALWAYS)
        self._renamed = renamed
        self._known: dict[str, _Series | None] = {}
        self._labels: dict[str, Mapping[str, str]] = {}  # by how they are written, while one parses
        self._left = MAX_NEW  # characters of series that may still be taken apart
        self._lines: list[str] = []
        self._blocks: list[str] = []  # of a text with nothing new: its own lines, in one piece
        self._found = Exposition({})

    def parse(self, text: str) -> Exposition:
        """Take the text apart.

        Raises ScrapeError when it is something else (a web page, JSON) or out of all proportion.
        An empty text is an engine that has nothing to tell yet. While no line of the engine's own
        has changed, the same Exposition comes again: an idle engine costs next to nothing.
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
                self._known = known  # an honest text gets further the next time
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
        """A line's series as it is written, and its value; quick where the series is known."""
        head, _, number = line.rpartition(" ")
        return (head, number) if head in self._known else _split(line)

    def _new(self, head: str) -> _Series | None:
        self._left -= len(head)
        return _take_apart(head, self._labels)

    def _cut(self, text: str) -> list[str]:
        """The stretches of whole lines in which nothing but our own lines and comments stand."""
        blocks: list[list[str]] = [[]]
        for line in text.split("\n"):
            if line.startswith(("#", *self._prefixes)):
                blocks[-1].append(f"{line}\n")
            elif blocks[-1]:
                blocks.append([])
        whole = ["".join(block) for block in blocks]
        return [block for block in whole if self._has_own(block)]

    def _is_unchanged(self, text: str) -> bool:
        """Whether these stretches are all in a text that it has for us; if in doubt, it is not."""
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


def parse(text: str, prefixes: tuple[str, ...]) -> Exposition:
    """Parse one text on its own; see ``Parser.parse``."""
    return Parser(prefixes).parse(text)


def under_own_names(
    found: Mapping[str, list[tuple[Mapping[str, str], float]]], renamed: Mapping[str, str]
) -> Exposition:
    """The series under the engine's own names.

    What begins otherwise counts only where nothing has its own name: else it is another's.
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
    """The value that stands on a line; None when it is no number or beyond all bounds."""
    # Digits of other scripts and underscores are numbers to Python only.
    if not number.isascii() or "_" in number:
        return None
    try:
        value = float(number)
    except ValueError:
        return None
    return value if -MAX_VALUE < value < MAX_VALUE else None  # which no NaN is


def _split(line: str) -> tuple[str, str]:
    """A line's series and its value. A time stamp may follow the value, and is dropped."""
    cut = line.rfind("}") + 1 or max(line.find(" "), 0)
    number, _, _ = line[cut:].strip().partition(" ")
    return line[:cut], number


@cache
def _families() -> Callable[[str], Iterable[Metric]]:
    """``prometheus_client``'s parser, imported on first use: the package brings servers along."""
    from prometheus_client.parser import text_string_to_metric_families

    return text_string_to_metric_families


def _take_apart(head: str, written: dict[str, Mapping[str, str]]) -> _Series | None:
    """Name and labels of one series; None when malformed, or a ``_created`` time stamp.

    written: labels that were taken apart, by how they were written but for a bucket's bound.
    Of vLLM's 317 series 26 differ in more than that, and the others are nine tenths of the time
    until the first numbers.
    """
    name, brace, labels = head.partition("{")
    name = name.rstrip()
    if name.endswith("_created"):
        return None
    form = brace + labels
    bound = _BOUND.search(form)
    if bound is not None:
        form = f"{form[: bound.start()]}\n{form[bound.end() :]}"  # which no line has
    known = written.get(form)
    if known is not None and _NAME.fullmatch(name):
        return name, known if bound is None else MappingProxyType({**known, "le": bound[1]})
    try:
        families = list(_families()(f"{head} 0\n"))
        (sample,) = families[0].samples
    except (ValueError, IndexError, KeyError):
        return None
    if sample.name != name:  # in the newer syntax the name may stand among the labels
        return None
    if bound is None or (sample.labels.get("le") == bound[1] and "le=" not in form):
        written[form] = MappingProxyType(sample.labels)
    return sample.name, MappingProxyType(sample.labels)


def _refuse_what_is_not_metrics(text: str, lines: list[str]) -> None:
    """ScrapeError for a text without a usable line, unless it is a metrics page without samples."""
    if any(len(line) > MAX_LINE for line in lines):
        raise ScrapeError(
            f"the metrics have lines of more than {MAX_LINE:,} characters, and no others",
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
