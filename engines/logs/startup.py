"""A start in an engine's log: the line that llmtop writes before it, and its phases."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmtop.engines.core.adapter import Phase
from llmtop.engines.core.records import Step
from llmtop.engines.host.log_reader import BLOCK, older, read_lines
from llmtop.engines.host.redaction import redact
from llmtop.engines.host.safe_text import clean

# Progress bars of huggingface_hub and transformers: of files, or of one file.
DOWNLOAD = re.compile(
    r"(?:Fetching \d{1,6} files|Downloading [\w ().-]{1,80}): {0,4}\d{1,3}%"
    r".{0,60}?\b(?P<done>\d{1,7})/(?P<total>\d{1,7}) \["
    r"|\.safetensors: {0,4}\d{1,3}%\|"
)


class StartupLog:
    """The present phase of a start, and since when.

    Phases only advance, in the order of the table: several workers of one engine write into the
    same log, each at its own speed. With the groups ``done`` and ``total`` of a pattern, the phase
    shows a count ("shards 3/7", with ``part`` "CUDA graphs 3/51 full") from its last matching
    line.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self._phases = tuple(phases)
        self._index = -1
        self._progress = ""
        self._since: float | None = None
        self._reached: list[tuple[str, float | None]] = []

    def feed(self, lines: Iterable[str], now: float, *, late: bool = False) -> None:
        """Process new lines. now: unix seconds at which they were read.

        late: they were written long before, so the start time of their phases is unknown.
        """
        for line in lines:
            # The latest phase counts, so the table is tried from its end.
            for index in range(len(self._phases) - 1, max(self._index, 0) - 1, -1):
                found = self._phases[index].begins.search(line)
                if found is not None:
                    if index != self._index:
                        self._index, self._since = index, now
                        word = self._phases[index].word
                        self._reached.append((word, None if late else now))
                    self._progress = _progress(found)
                    break

    @property
    def phase(self) -> str:
        """The name of the current phase with its progress, "" before the first."""
        if self._index < 0:
            return ""
        return f"{self._phases[self._index].word} {self._progress}".rstrip()

    def steps(self, now: float, before: Mapping[str, float]) -> tuple[Step, ...]:
        """The phases reached so far. before: the duration of each at the last start."""
        begins = [began for _, began in self._reached] + [now]
        return tuple(
            Step(word, _between(began, begins[number + 1]), before.get(word))
            for number, (word, began) in enumerate(self._reached)
        )

    @property
    def since(self) -> float | None:
        """Unix seconds at which the current phase was first seen, None before the first."""
        return self._since


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin)


def start_mark(started_at: float) -> str:
    """The prefix of the line that llmtop writes into the log before a start, unique per start."""
    return f"=== llmtop {datetime.fromtimestamp(started_at, UTC).isoformat()} starts: "


def write_start_line(fd: int, started_at: float, command: Iterable[str]) -> None:
    """Write the start line with the command, secrets hidden. OSError when the disk is full."""
    line = start_mark(started_at) + clean(shlex.join(redact(command))) + " ===\n"
    data = line.encode(errors="replace")
    while data:
        data = data[os.write(fd, data) :]


def run_start(path: Path, started_at: float) -> int | None:
    """The offset of this start's line in a log, searched from the end; else None."""
    mark = start_mark(started_at).encode()
    with contextlib.suppress(OSError), path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        after = b""
        while end > 0:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            block = file.read(end - begin) + after
            found = block.rfind(mark)
            if found >= 0:
                return begin + found
            after = block[: len(mark)]
            end = begin
    return None


def run_lines(path: Path, started_at: float) -> Iterator[str]:
    """All clean lines of one start, in order, including the rotated part if it contains some."""
    begin = run_start(path, started_at)
    if begin is None:
        before = run_start(older(path), started_at)
        if before is not None:
            yield from read_lines(older(path), before)
    yield from read_lines(path, begin or 0)


def start_lines(path: Path, started_at: float, most: int) -> Iterator[str]:
    """The first ``most`` characters of the clean lines of one start; none when the log does not
    reach back that far."""
    if all(run_start(part, started_at) is None for part in (path, older(path))):
        return
    for line in run_lines(path, started_at):
        most -= len(line)
        if most <= 0:
            return
        yield line


def _progress(found: re.Match[str]) -> str:
    groups = found.groupdict()
    done, total = groups.get("done"), groups.get("total")
    if not done or not total:
        return ""
    # Several rounds may count one after the other: name the round, so that counts do not go back.
    part = clean(groups.get("part") or "").lower()
    return f"{done}/{total} {part}".rstrip()
