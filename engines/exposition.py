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
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from llmtop import LlmtopError

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

# The one foreign line worth having: it tells a restart (vLLM has it, SGLang has not).
_ALWAYS = "process_start_time_seconds"


_Series = tuple[str, Mapping[str, str]]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# A number, so that it cannot begin behind a quote that ends another label's value.
_BOUND = re.compile(r'(?<=[{,])le="([0-9.e+-]+|\+Inf)"')


class ScrapeError(LlmtopError):
    """An engine's numbers could not be had. status: the HTTP status, None when none came."""

    def __init__(self, message: str, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class Exposition:
    """The parsed text, an ``adapter.MetricText``. Names are sample names: ``_total`` is in them."""

    __slots__ = ("_series",)

    def __init__(self, series: Mapping[str, list[tuple[Mapping[str, str], float]]]) -> None:
        self._series = series

    def __len__(self) -> int:
        return sum(map(len, self._series.values()))

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""
        wanted = labels.items()
        found = [value for have, value in self._series.get(name, ()) if wanted <= have.items()]
        return sum(found) if found else None

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels, in the order of the text."""
        return tuple(self._series.get(name, ()))


class Parser:
    """Parses one engine's text again and again. Keeps no more than the series of the last text."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = (*prefixes, _ALWAYS)
        self._known: dict[str, _Series | None] = {}
        self._labels: dict[str, Mapping[str, str]] = {}  # by how they are written, while one parses
        self._left = MAX_NEW  # characters of series that may still be taken apart
        self._lines: list[str] = []
        self._blocks: list[str] = []  # of a text that told nothing new: its own lines, in one piece
        self._found = Exposition({})

    def parse(self, text: str) -> Exposition:
        """Take the text apart.

        Raises ScrapeError when it is something else (a web page, JSON) or out of all proportion.
        An empty text is an engine that has nothing to tell yet. While no line of the engine's own
        has changed, the same Exposition comes again: an idle engine costs next to nothing.
        """
        if len(text) > MAX_TEXT:
            raise ScrapeError(f"the metrics are larger than {MAX_TEXT // 2**20} MiB")
        if self._blocks and self._tells_the_same(text):
            return self._found
        prefixes = self._prefixes
        lines = [line for line in text.split("\n") if line.startswith(prefixes)]
        if lines and lines == self._lines:
            self._blocks = self._cut(text)
            return self._found
        self._blocks = []
        known: dict[str, _Series | None] = {}
        values: dict[str, float] = {}
        self._left = min(MAX_NEW, self._left + NEW_AGAIN)
        for line in lines:
            if len(line) > MAX_LINE:
                continue
            head, _, number = line.rpartition(" ")
            if head in self._known:
                series = self._known[head]
            else:
                head, number = _split(line)
                if head in self._known:
                    series = self._known[head]
                else:
                    series = _take_apart(head, self._labels)
                    self._left -= len(head)
            known[head] = series
            if len(known) > MAX_SERIES or self._left < 0:
                self._labels = {}
                self._known = known  # an honest text gets further the next time
                raise ScrapeError(
                    f"the metrics have more than {MAX_SERIES:,} series, or endless ones"
                )
            if series is None or head in values:
                continue
            try:
                value = float(number)
            except ValueError:
                continue
            if -MAX_VALUE < value < MAX_VALUE:  # which no NaN is
                values[head] = value
        self._known, self._labels = known, {}
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for head, value in values.items():
            if (series := known[head]) is not None:
                found.setdefault(series[0], []).append((series[1], value))
        if not found and any(len(line) > MAX_LINE for line in lines):
            raise ScrapeError(
                f"the metrics have lines of more than {MAX_LINE:,} characters, and no others",
                "give the engine a shorter model name; each line repeats it",
            )
        if not found and not _looks_like_metrics(text):
            raise ScrapeError(
                "the answer is not metrics text",
                "check the URL: this is not the metrics page of an LLM engine",
            )
        self._lines, self._found = lines, Exposition(found)
        return self._found

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

    def _tells_the_same(self, text: str) -> bool:
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


def _split(line: str) -> tuple[str, str]:
    """A line's series and its value. A time stamp may follow the value, and is dropped."""
    cut = line.rfind("}") + 1 or max(line.find(" "), 0)
    number, _, _ = line[cut:].strip().partition(" ")
    return line[:cut], number


@cache
def _families() -> Callable[[str], Iterable[Metric]]:
    """``prometheus_client``'s parser, imported on first use and by itself.

    The package imports its servers as well (HTTP, WSGI), three quarters of it, and it is wanted
    before the screen can be painted whole.
    """
    package = "prometheus_client"
    found = find_spec(package)
    alone = package not in sys.modules and found is not None
    if alone and found is not None:
        bare = ModuleType(package)
        bare.__path__ = list(found.submodule_search_locations or ())
        sys.modules[package] = bare
    try:
        from prometheus_client.parser import text_string_to_metric_families
    finally:
        if alone:
            sys.modules.pop(package, None)  # whoever wants it whole imports it whole
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


def _looks_like_metrics(text: str) -> bool:
    """Whether a text without a line for us is exposition text all the same."""
    start = text.lstrip()
    return not start or start.startswith(("# HELP ", "# TYPE ", "# EOF"))
