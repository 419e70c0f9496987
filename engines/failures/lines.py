"""Parses one line of an engine's log: the process that wrote it, its level, its text.

Formats: vLLM 0.8 to 0.32 (with one or two process tags), SGLang 0.4 to 0.5.23, TensorRT-LLM 1.x,
uvicorn, Ray, torch's elastic ranks and Open MPI's tagged output.
"""

from __future__ import annotations

import re
from enum import IntEnum

from msgspec import Struct

RECORD = "record"  # the origin in formats whose continuation lines have no prefix


class Level(IntEnum):
    """How a line was logged. NONE: it was printed, or its format has no level."""

    NONE = 0
    CALM = 1  # debug, info, warning: the engine continues
    ERROR = 2


class Depth(IntEnum):
    """The depth in the process tree from which a line comes. Causes are deeper than effects."""

    FRONT = 0  # the API server
    UNTOLD = 1  # no tag
    CORE = 2  # vLLM's engine core, SGLang's controller of data parallel ranks
    WORKER = 3  # the process that drives a GPU: a worker, a scheduler, an MPI rank


class LogLine(Struct, frozen=True):
    """process: the tag of the process that wrote it, "" for none. origin: the source line that
    logged it, as vLLM writes it ("core.py:96"), "" for none. All lines of a record have the same
    origin."""

    process: str
    depth: Depth
    level: Level
    origin: str
    text: str


_TAG = re.compile(
    r"\(([A-Za-z][\w:.-]{0,60})(?: [\w =.,:-]{0,60})? ?pid=\d{1,10}(?:, [^)]{0,60})?\) ?"
)
_RANK = re.compile(
    r"\[rank(\d{1,5})\]:? ?(?:\[[EWI]\d{4}[^\]]{0,80}\] ?)?|\[1,(\d{1,5})\]<std\w{3}>:? ?"
)
_LEVEL = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)"
    r"(?:(?: \d\d-\d\d)?(?: \d\d:\d\d:\d\d(?:[.,]\d{1,6})?)? (?:\[(?P<origin>[^\]\s]{1,120})\]"
    r"|(?P<bare>[\w./-]{1,120}:\d{1,6})\])|:| ) ?"
)
_SGLANG = re.compile(
    r"\[(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?:\.\d{1,6})?(?P<rank>(?: [A-Z]{2,8}\d{1,5}){0,6})\] ?"
)
_TRT = re.compile(
    r"(?:\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] )?\[(?:TRT-LLM|TensorRT-LLM|TRT)\]"
    r" ?(?:\[RANK (?P<rank>\d{1,5})\] ?)?\[(?P<level>[EWIDVF]|[A-Z]{4,8})\] ?"
)
_PLAIN = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?Z? ?[-|]? ?"
    r"(?:[\w.]{1,60} - )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\b[ :|-]{0,4}"
)
_GROUP = re.compile(r"\s{0,40}(?:\| ?|\+-)")  # how Python draws a group of exceptions

_CALM = frozenset({"DEBUG", "INFO", "WARNING", "W", "I", "D", "V", "VERBOSE", "TRACE"})
_WORKER = re.compile(r"(?i)worker|scheduler|rank")
_CORE = re.compile(r"(?i)core|controller")
_FRONT = re.compile(r"(?i)api_?server|frontend|tokenizer")
_NOBODY = "", Depth.UNTOLD


def parse(line: str) -> LogLine:
    """Parse a line. Each step examines at most its first few hundred characters."""
    process, depth, text = _tags(line)
    found = _LEVEL.match(text)
    if found is not None:
        origin = found["origin"] or found["bare"] or ""
        return LogLine(process, depth, _level(found["level"]), origin, text[found.end() :])
    if text.startswith("["):
        found = _SGLANG.match(text)
        if found is not None:
            ranks, text = found["rank"].strip(), text[found.end() :]
            if ranks:
                process, depth = ranks, Depth.WORKER
            inner = _LEVEL.match(text)
            if inner is not None:
                return LogLine(process, depth, _level(inner["level"]), "", text[inner.end() :])
            return LogLine(process, depth, Level.NONE, RECORD, text)
        found = _TRT.match(text)
        if found is not None:
            if found["rank"]:
                process, depth = f"RANK {found['rank']}", Depth.WORKER
            return LogLine(process, depth, _level(found["level"]), RECORD, text[found.end() :])
    elif text[:2] == "20":
        found = _PLAIN.match(text)
        if found is not None:
            return LogLine(process, depth, _level(found["level"]), RECORD, text[found.end() :])
    elif text[:1] in " \t" and "|" in text[:60]:
        drawn = _GROUP.match(text)
        if drawn is not None:
            text = text[drawn.end() :]
    return LogLine(process, depth, Level.NONE, "", text)


def _tags(line: str) -> tuple[str, Depth, str]:
    """The deepest tag at the beginning of a line and what follows it. vLLM nests them."""
    process, depth = _NOBODY
    at = 0
    for _ in range(4):
        if line.startswith("(", at):
            found = _TAG.match(line, at)
            name = found[1] if found is not None else ""
        elif line.startswith("[", at):
            found = _RANK.match(line, at)
            name = f"rank{found[1] or found[2]}" if found is not None else ""
        else:
            break
        if found is None:
            break
        at = found.end()
        process, depth = found[0].strip(), _depth(name)
    return process, depth, line[at:]


def _depth(name: str) -> Depth:
    if _FRONT.search(name):
        return Depth.FRONT
    if _WORKER.search(name):
        return Depth.WORKER
    return Depth.CORE if _CORE.search(name) else Depth.UNTOLD


def _level(word: str) -> Level:
    return Level.CALM if word in _CALM else Level.ERROR
