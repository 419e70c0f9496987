"""The errors in an engine's log: tracebacks of each of its processes, with their chains.

Several processes write into one log, so the parser keeps one state for each process. Memory is
bounded: the number of processes, errors and lines of each is limited.
"""

from __future__ import annotations

import re
from collections import deque
from enum import IntEnum

from msgspec import Struct, field

from llmtop.engines.failures.lines import RECORD, Depth, Level, LogLine

KEPT = 128  # errors; causes are among the first
_MESSAGE_LINES = 24  # of one error: detailed messages have about sixteen
_LINE_CHARS = 1000
_LINKS = 6  # errors of a chain
_PROCESSES = 256
_BEFORE, _AFTER = 2, 3  # lines around the one that reports the cause
_STRAY = 4  # lines of other processes inside a traceback without a tag
OUTLIVED = 12  # ordinary lines after an error: its process has survived it


class Grade(IntEnum):
    """How certain it is that an error ended the process that raised it."""

    MINOR = 0  # a thread, a request, a plugin: the process continues
    REPORTED = 1  # logged as an error
    UNCAUGHT = 2  # Python's traceback at the end of a process
    FATAL = 3  # its heading reports that the process ends


# Headings of the last error of a process: vLLM, SGLang, TensorRT-LLM, Python's multiprocessing.
_FATAL = re.compile(
    r"failed to start|encountered a fatal error|hit an exception|hit an error|Exception in worker"
    r"|Error executing method|Failed to initialize executor|^Process [\w:.-]{1,60}:$"
    r"|Exception in run_tp_server|Initialization failed\b"
)
_MINOR = re.compile(
    r"^Exception in thread|^Exception ignored|Logging error|Exception in ASGI application"
    r"|Error in atexit|Exception in callback|Task exception was never retrieved|load plugin"
)
# An error that is reported in one line with its heading.
_FATAL_LINE = re.compile(r"^Failed to initialize executor on rank \d{1,5}: ?(?=\S)")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_RAISE = re.compile(r"(?P<type>[A-Za-z_][\w.]{0,160})(?::\s?(?P<what>.*))?$")
_LOOSE = re.compile(r"[A-Za-z_][\w.]{0,120}(?:Error|Exception|Interrupt)(?::\s|$)")
# Stack frames that identify the process of a line without a tag.
_IN_WORKER = re.compile(
    r"in (?:worker_main|run_scheduler_process|_execute_worker_rpc|run_tp_server)$"
)
_IN_CORE = re.compile(r"in run_engine_core$")


class Link(Struct, eq=False):
    """One error of a chain: its line, the lines of its message, and where it was raised.

    shown: unchanged log lines, from two lines before the error on.
    """

    lines: list[str]
    place: str
    shown: list[str]
    wanted: int = _MESSAGE_LINES

    @property
    def text(self) -> str:
        """The whole message, one line each."""
        return "\n".join(self.lines)

    def excerpt(self, marked: str) -> tuple[str, ...]:
        """The log lines around the first that holds ``marked``, else around the error itself."""
        mark, head = marked.strip()[:80], self.lines[0][:80]
        places = [n for n, line in enumerate(self.shown) if mark and mark in line]
        places = places or [n for n, line in enumerate(self.shown) if head in line] or [0]
        return tuple(self.shown[max(0, places[0] - _BEFORE) : places[0] + _AFTER + 1])


class Report(Struct, eq=False):
    """An error and the errors that it was raised from, in the order of the log: root first.

    number: its line number in the log. work: the ordinary lines of its process before it.
    """

    process: str
    depth: Depth
    grade: Grade
    number: int
    work: int
    links: list[Link] = field(default_factory=list)


class _Place(IntEnum):
    OUTSIDE = 0
    FRAMES = 1
    MESSAGE = 2


class _Process(Struct):
    """The parser state of one process. work: ordinary lines so far."""

    work: int = 0
    place: _Place = _Place.OUTSIDE
    origin: str = ""
    heading: str = ""
    report: Report | None = None
    chained: bool = False
    code: str = ""
    code_follows: bool = False
    stray: int = 0


class ErrorLog:
    """Reads a log line by line and keeps its errors.

    ``feed`` returns whether the line is part of an error that it keeps. Another line may still be
    an error without a traceback.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.served_at = -1  # the line at which the server was first ready
        self._processes: dict[str, _Process] = {}
        self._before: deque[str] = deque(maxlen=_BEFORE + 1)  # includes the present line
        self._open: list[Link] = []
        self._number = 0

    def feed(self, raw: str, line: LogLine) -> bool:
        """Process the next line: the raw text and its parsed form."""
        self._number += 1
        for link in self._open:
            link.shown.append(raw)
            link.wanted -= 1
        if self._open:
            self._open = [link for link in self._open if link.wanted > 0]
        writer = self._process(line.process)
        reader = writer
        if line.origin == RECORD:
            # Only the first line of such a record has a prefix.
            reader = self._process("")
            self._close(reader)
        taken = self._step(reader, raw, line)
        if not taken and (line.level is Level.CALM or line.origin == RECORD):
            writer.work += 1
            if "Application startup complete" in line.text:
                self.served_at = self._number
        self._before.append(raw)
        return taken

    def outlived(self, process: str, number: int, work: int) -> bool:
        """Whether the process of an error continued its work after it."""
        if number < self.served_at:
            return True
        now = self._processes.get(process)
        return now is not None and now.work - work >= OUTLIVED

    def mark(self, process: str) -> tuple[int, int]:
        """The present position: the line number, and the ordinary lines of a process."""
        now = self._processes.get(process)
        return self._number, now.work if now is not None else 0

    def excerpt(self, raw: str, text: str) -> Link:
        """A link made of the present line, outside of tracebacks. Lines that follow are added to
        the lines that it shows."""
        link = Link([text[:_LINE_CHARS]], "", list(self._before), wanted=_AFTER)
        self._open.append(link)
        return link

    def _process(self, tag: str) -> _Process:
        found = self._processes.get(tag)
        if found is None:
            found = _Process()
            if len(self._processes) < _PROCESSES:
                self._processes[tag] = found
        return found

    def _step(self, process: _Process, raw: str, line: LogLine) -> bool:
        text = line.text
        if _TRACEBACK in text:
            self._begin(process, line, text)
            return True
        if process.place is _Place.FRAMES:
            return self._frame(process, raw, line)
        if process.place is _Place.MESSAGE:
            return self._message(process, raw, line)
        found = _FATAL_LINE.match(text)
        if found is not None:
            report = self._new(line, Grade.FATAL, Depth.WORKER)
            self._add(process, report, raw, text[found.end() :], _bare(line))
            return True
        if text and not text.isspace():
            process.heading = text
        return False

    def _begin(self, process: _Process, line: LogLine, text: str) -> None:
        if process.chained and process.report is not None:
            process.chained = False
        else:
            heading = text.partition(_TRACEBACK)[0].strip() or process.heading
            process.report = self._new(line, _grade(heading, line), _depth(heading, line.depth))
        process.place, process.origin = _Place.FRAMES, _bare(line)
        process.heading, process.code, process.stray = "", "", 0

    def _frame(self, process: _Process, raw: str, line: LogLine) -> bool:
        text = line.text
        if process.code_follows or text[:1] in (" ", "\t", "^") or text.startswith('File "'):
            # Without indentation, only its position identifies the line of code.
            process.code_follows = text.startswith('File "')
            if text.lstrip().startswith('File "'):
                self._deepen(process, text.rstrip())
            elif text.strip("^~ \t"):
                process.code = text.strip()[:200]
            return True
        if _another(process, line):
            self._close(process)
            return self._step(process, raw, line)
        found = _RAISE.match(text)
        if found is None:
            process.stray += 1
            if process.stray > _STRAY:
                self._close(process)
            return False
        if process.report is not None:
            self._add(process, process.report, raw, text, line.origin)
        return True

    def _message(self, process: _Process, raw: str, line: LogLine) -> bool:
        text = line.text
        if any(words in text for words in _CHAINED):
            process.chained = True
            return True
        link = process.report.links[-1] if process.report is not None else None
        ended = link is None or len(link.lines) >= _MESSAGE_LINES or _FATAL.search(text)
        if ended or _another(process, line):
            self._close(process)
            return self._step(process, raw, line)
        if link is not None and text.strip():
            link.lines.append(text[:_LINE_CHARS])
        return True

    def _deepen(self, process: _Process, frame: str) -> None:
        report = process.report
        if report is None or report.depth is not Depth.UNTOLD:
            return
        if _IN_WORKER.search(frame[-200:]):
            report.depth = Depth.WORKER
        elif _IN_CORE.search(frame[-200:]):
            report.depth = Depth.CORE

    def _new(self, line: LogLine, grade: Grade, depth: Depth) -> Report:
        number, work = self.mark(line.process)
        report = Report(line.process, depth, grade, number, work)
        if len(self.reports) >= KEPT:
            self._make_room()
        if len(self.reports) < KEPT:
            self.reports.append(report)
        return report

    def _make_room(self) -> None:
        self.reports = [
            one for one in self.reports if not self.outlived(one.process, one.number, one.work)
        ]
        if len(self.reports) >= KEPT:
            least = min(self.reports, key=lambda one: (one.depth, one.grade, -one.number))
            self.reports.remove(least)

    def _add(self, process: _Process, report: Report, raw: str, text: str, origin: str) -> None:
        process.report, process.place, process.origin = report, _Place.MESSAGE, origin
        if len(report.links) < _LINKS:
            report.links.append(self._link(raw, text, process.code))

    def _link(self, raw: str, text: str, code: str) -> Link:
        link = Link([text[:_LINE_CHARS]], code, [*list(self._before)[-_BEFORE:], raw])
        self._open.append(link)
        return link

    def _close(self, process: _Process) -> None:
        process.place, process.report, process.chained = _Place.OUTSIDE, None, False
        process.code_follows = False


def loose(line: LogLine) -> bool:
    """Whether a line that belongs to no traceback has the form of an error."""
    return _LOOSE.match(line.text) is not None


def _another(process: _Process, line: LogLine) -> bool:
    """Whether a line begins a new record of its process."""
    return line.level is Level.CALM or line.origin != process.origin


def _bare(line: LogLine) -> str:
    """The origin of the next lines of the same record."""
    return "" if line.origin == RECORD else line.origin


def _grade(heading: str, line: LogLine) -> Grade:
    if _MINOR.search(heading) or line.level is Level.CALM:
        return Grade.MINOR
    if _FATAL.search(heading):
        return Grade.FATAL
    return Grade.UNCAUGHT if not line.origin and line.level is Level.NONE else Grade.REPORTED


def _depth(heading: str, depth: Depth) -> Depth:
    """The depth that a heading implies for a line without a tag."""
    if depth is not Depth.UNTOLD:
        return depth
    if "Scheduler hit" in heading or "Worker" in heading or "executor on rank" in heading:
        return Depth.WORKER
    return Depth.CORE if "EngineCore" in heading or "Controller" in heading else depth
