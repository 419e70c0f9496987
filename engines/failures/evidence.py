"""The errors of a log, each with the pattern that matches it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures import signals
from llmtop.engines.failures.errors import ErrorLog, Grade, Link, Report, loose
from llmtop.engines.failures.lines import Depth, Level, LogLine, parse

_TOLD = 16  # error lines without a matching pattern
_AT_ONCE = 5_000  # lines examined at once; of the later ones only the last are examined
_LATE = 1_000
_PLAIN = 50_000  # lines without an error mark on which the engine's own patterns are tried
_NEVER = re.compile(
    r"=== llmtop |\[?Receive: obj=|Finish: obj=|server_args=|Dumping |\S{0,80}NCCL INFO|usage: "
)
# Marks of a line without a traceback that a general pattern may match. Most lines have none.
_SIGNS = (
    *("rror", "ERROR", "atal", "ailed", "annot", "not found", "No such", "WARN", "what():"),
    *("terminate", "illed", "denied", "imeout", "timed out", "ddress already", "memory", "egfault"),
    *("Xid", "too old", "No space", "nsupported", "Segmentation", "Bus error", "Illegal", "code"),
    *("No module", "restricted", "xception", "onnect", "ssertion", "xceed", "oom", "OOM", "bus"),
    *("uncorrectable", "slots", "mismatch", "not compatible", "MPI_", "apability", "not supported"),
)
# A printed warning: of Python's warnings module, of glog, of a compiler.
_WARNING = re.compile(
    r"(?:\S{1,300}:\d{1,7}: )?(?:\w{1,60}\.){0,6}\w{0,60}[Ww]arning ?: |\[?W\d{4} \d\d:"
)


class Suspect(Struct, frozen=True, eq=False):
    """An error that may be the cause. kind: CAUSE without an entry means the error's own text.

    entry, found: the pattern that matches it, and the match; general: the pattern is for any
    engine. tool: printed by a program, not logged by the engine.
    """

    kind: Kind
    grade: Grade
    depth: Depth
    number: int
    process: str
    work: int
    link: Link
    entry: FailurePattern | None = None
    found: re.Match[str] | None = None
    rank: int = 0
    tool: bool = False
    general: bool = False

    @property
    def known(self) -> bool:
        """Whether a pattern matches it."""
        return self.entry is not None and self.kind is Kind.CAUSE

    @property
    def unknown(self) -> bool:
        """Whether only the error's own text is known."""
        return self.entry is None


class Evidence:
    """Reads a log once, in bounded memory, and returns the errors that ended its processes.

    own: the engine's patterns, tried on every line. general: the patterns for any engine.
    """

    def __init__(
        self, own: Sequence[FailurePattern], general: Sequence[FailurePattern], lines: Iterable[str]
    ) -> None:
        self._entries = (*own, *general)
        self._searches = [entry.pattern.search for entry in self._entries]
        self._own = len(own)
        self._log = ErrorLog()
        self._loose: dict[tuple[int, Depth], Suspect] = {}
        self._told: list[Suspect] = []
        self._asked_at = self._itself_at = ("", -1, 0)
        self._asked_by = ""
        self._finished: set[int] = set()
        self._looked = self._plain = 0
        self._late: deque[tuple[LogLine, int, int, Link]] = deque(maxlen=_LATE)
        for raw in lines:
            self._take(raw)
        for line, number, work, link in self._late:
            self._match(line, number, work, link, general=True)
        self._raised = [found for report in self._log.reports if (found := self._judge(report))]

    def suspects(self, *, outlived: bool = False) -> list[Suspect]:
        """The errors that ended their process, or those that the process survived."""
        every = (*self._raised, *self._loose.values(), *self._told)
        return [one for one in every if self._outlived(one) is outlived]

    @property
    def asked(self) -> str:
        """The termination signal that its last lines report; else ""."""
        return self._asked_by if self._recent(self._asked_at) else ""

    def before_asked(self, one: Suspect) -> bool:
        """Whether an error was logged before the last report of a termination signal."""
        return one.number < self._asked_at[1]

    @property
    def itself(self) -> bool:
        """Whether its last lines report that it kills its own processes."""
        return self._recent(self._itself_at)

    def finished(self, pid: int | None) -> bool:
        """Whether the server with this pid reported an orderly exit."""
        return pid in self._finished

    def _take(self, raw: str) -> None:
        line = parse(raw)
        text = line.text
        if "Finished" in text and (server := signals.finished(text)) is not None:
            self._finished.add(server)
        if "hut" in text or "SIG" in text or "sig" in text or "kill" in text or "atchdog" in text:
            self._hear(line)
            if signals.ends_itself(text):
                self._itself_at = (line.process, *self._log.mark(line.process))
        elif "KeyboardInterrupt" in text:
            self._hear(line)
        taken = self._log.feed(raw, line)
        if not taken and line.level is not Level.CALM and not _NEVER.match(text):
            self._scan(raw, line)

    def _hear(self, line: LogLine) -> None:
        asked = signals.asked_to_end(line.text)
        if asked:
            self._asked_at = (line.process, *self._log.mark(line.process))
            # Only the first of these lines may name the signal.
            self._asked_by = self._asked_by or asked

    def _scan(self, raw: str, line: LogLine) -> None:
        signs = line.level is Level.ERROR or any(sign in line.text for sign in _SIGNS)
        number, work = self._log.mark(line.process)
        if signs:
            self._looked += 1
        else:
            self._plain += 1
            if not self._own or self._plain > _PLAIN:
                return
        if self._looked <= _AT_ONCE:
            self._match(line, number, work, None, general=signs, raw=raw)
        elif signs:
            # In a log of errors only, trying every pattern on each line would take too long.
            self._late.append((line, number, work, self._log.excerpt(raw, line.text)))

    def _match(
        self,
        line: LogLine,
        number: int,
        work: int,
        link: Link | None,
        *,
        general: bool,
        raw: str = "",
    ) -> None:
        printed = line.level is Level.NONE and not line.origin
        warning = line.level is Level.NONE and _WARNING.match(line.text) is not None
        grade = Grade.MINOR if warning else Grade.REPORTED

        def suspect(kind: Kind, index: int = 0, found: re.Match[str] | None = None) -> Suspect:
            return Suspect(
                *(kind, grade, line.depth, number, line.process, work),
                link if link is not None else self._log.excerpt(raw, line.text),
                self._entries[index] if found is not None else None,
                *(found, index, printed and not warning, index >= self._own),
            )

        index, found = self._search(line.text, general=general)
        if found is not None:
            key = index, line.depth
            before = self._loose.get(key)
            if before is None or before.grade < grade or self._outlived(before):
                self._loose[key] = suspect(self._entries[index].kind, index, found)
        elif len(self._told) < _TOLD and line.text.strip() and _erroneous(line):
            self._told.append(suspect(Kind.CAUSE))

    def _judge(self, report: Report) -> Suspect | None:
        """The most informative link of a chain: a known cause, else its root, else an effect."""
        best: Suspect | None = None
        for link in report.links:
            index, found = self._search(link.text)
            entry = self._entries[index] if found is not None else None
            kind = entry.kind if entry is not None else Kind.CAUSE
            one = Suspect(
                *(kind, report.grade, report.depth, report.number, report.process, report.work),
                *(link, entry, found, index),
            )
            if best is None or _weight(one) > _weight(best):
                best = one
        return best

    def _search(self, text: str, *, general: bool = True) -> tuple[int, re.Match[str] | None]:
        for index in range(len(self._searches) if general else self._own):
            found = self._searches[index](text)
            if found is not None:
                return index, found
        return 0, None

    def _outlived(self, one: Suspect) -> bool:
        return self._log.outlived(one.process, one.number, one.work)

    def _recent(self, place: tuple[str, int, int]) -> bool:
        process, number, work = place
        return number >= 0 and not self._log.outlived(process, number, work)


def _erroneous(line: LogLine) -> bool:
    return line.level is Level.ERROR or loose(line)


def _weight(one: Suspect) -> int:
    """How informative a link of a chain is. The link nearest to the root wins among equals."""
    if one.known:
        return 3
    if one.unknown:
        return 2
    return 1 if one.kind is Kind.VAGUE else 0


def surest(suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """The sort key: most certain, then deepest, then first in the log."""
    yield from sorted(suspects, key=lambda one: (-one.grade, -one.depth, one.number))
