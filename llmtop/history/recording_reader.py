"""Reads a recording: its engines, its duration, and its facts between two moments."""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path

from llmtop import LlmtopError, UsageError
from llmtop.history import members
from llmtop.history.fact_codec import RecordingError, check_format, decode, kind_of
from llmtop.history.facts import EngineFact, Fact, Head
from llmtop.history.members import Member

_OVERVIEW_KINDS = frozenset({"summary", "mark", "event"})
_DATA_KINDS = frozenset({"series", "steps"})  # the first one ends the keyframe of a member
_STEPS = re.compile(rb'^\{"kind":"steps","time":(\d{1,12}(?:\.\d{1,20})?),')
KEPT = 40  # members whose text stays in memory: a seek reads the twenty minutes before its target


class Recording:
    """One open recording. The caller closes it; usable in ``with``.

    Raises UsageError where the file cannot be opened, and RecordingError where it is not a
    recording or has a newer format. began, ended: unix seconds. remark: what is wrong with the
    file, "" where nothing is; the part that can be read is still usable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remark = ""
        self._fd = _open(path)
        self._texts: OrderedDict[int, list[bytes]] = OrderedDict()
        try:
            self._members = members.index(self._fd)
            self.head = self._read_head()
        except LlmtopError as error:
            os.close(self._fd)
            raise _with_path(path, error) from None
        self._starts = [one.start for one in self._members]
        if sorted(self._starts) != self._starts:
            os.close(self._fd)
            raise RecordingError(f"{path}: the times of the recording are not in order")
        self.began = self._members[0].start
        self.ended = self._find_end()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        self._texts.clear()

    @property
    def member_count(self) -> int:
        """The number of its members: about one a minute."""
        return len(self._members)

    @property
    def duration_s(self) -> float:
        """Seconds from its first fact to its last one."""
        return max(0.0, self.ended - self.began)

    def engines(self) -> dict[str, EngineFact]:
        """The engines of the first and the last member by name, each as reported last."""
        found: dict[str, EngineFact] = {}
        for number in dict.fromkeys((0, len(self._members) - 1)):
            for line in self._lines(number):
                if kind_of(line) == "engine":
                    fact = decode(line)
                    if isinstance(fact, EngineFact):
                        found[fact.name] = fact
        return found

    def facts(
        self,
        since: float = 0.0,
        until: float = float("inf"),
        kinds: Collection[str] = (),
        steps_since: float = 0.0,
    ) -> Iterator[Fact]:
        """The facts with ``since <= time <= until`` (unix seconds), in the order of the file.

        kinds: only facts of these kinds; all where it is empty. steps_since: steps before this time
        are skipped without decoding them, because they are most of a recording. Raises
        RecordingError at a damaged part.
        """
        for line in self.lines(since, until, kinds):
            if steps_since and _is_steps_before(line, steps_since):
                continue
            fact = decode(line)
            if fact is not None and since <= fact.time <= until:
                yield fact

    def lines(self, since: float, until: float, kinds: Collection[str] = ()) -> Iterator[bytes]:
        """The undecoded lines of all members that overlap this time, of these kinds only.

        since, until: unix seconds. The lines of a member can lie outside this time.
        """
        first = max(0, bisect_right(self._starts, since) - 1)
        for number in range(first, bisect_right(self._starts, until)):
            for line in self._lines(number):
                if not kinds or kind_of(line) in kinds:
                    yield line

    def start_before(self, time: float) -> float:
        """The start of the member that holds ``time``, unix seconds. Its keyframe gives the full
        state, so a reader that wants the state at ``time`` begins here."""
        return self._starts[max(0, bisect_right(self._starts, time) - 1)]

    def beginnings(self) -> Iterator[Fact]:
        """The summaries, marks and events in the keyframes of all members, without repetitions.

        They give an overview of the whole recording without reading all of it.
        """
        seen: set[bytes] = set()
        for member in self._members:
            for line in members.beginning(self._fd, member).split(b"\n")[:-1]:
                kind = kind_of(line)
                if kind not in _OVERVIEW_KINDS:
                    if kind in _DATA_KINDS:
                        break
                    continue
                # A repeated mark or event differs only in the time of its line.
                key = (
                    line if kind == "summary" else line.partition(b'"time":')[2].partition(b",")[2]
                )
                if key in seen:
                    continue
                if kind != "summary" and len(seen) < 10_000:
                    seen.add(key)
                try:
                    fact = decode(line)
                except RecordingError:
                    break
                if fact is not None:
                    yield fact

    def _read_head(self) -> Head:
        lines = members.beginning(self._fd, self._members[0]).split(b"\n")
        head = decode(lines[0]) if len(lines) > 1 else None
        if not isinstance(head, Head):
            raise RecordingError("it does not begin like a recording")
        check_format(head, str(self.path))
        return head

    def _lines(self, number: int) -> list[bytes]:
        known = self._texts.get(number)
        if known is not None:
            self._texts.move_to_end(number)
            return known
        member = self._members[number]
        made = members.text(self._fd, member).split(b"\n")
        last = made.pop()  # after the last line end: b"", or a truncated line
        if last:
            self.remark = "the recording ends in the middle of a line: it was cut off"
        self._texts[number] = made
        if len(self._texts) > KEPT:
            self._texts.popitem(last=False)
        return made

    def _find_end(self) -> float:
        """The last time in the file, unix seconds. Drops members at the end that are damaged."""
        if not self._members[-1].whole:
            self.remark = "the recording was not ended: what recorded it was killed"
        for number in range(len(self._members) - 1, -1, -1):
            try:
                lines = self._lines(number)
                for line in reversed(lines):
                    fact = decode(line)
                    if fact is not None:
                        return max(fact.time, self._members[number].start)
            except RecordingError as error:
                self.remark = f"its end cannot be read: {error.message}"
                if number:
                    del self._members[number:], self._starts[number:]
        return self.began


def _is_steps_before(line: bytes, time: float) -> bool:
    found = _STEPS.match(line)
    return found is not None and float(found[1]) < time


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be read: {why}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path} is not an ordinary file")
    return fd


def _with_path(path: Path, error: LlmtopError) -> LlmtopError:
    if error.message.startswith(str(path)):
        return error
    return RecordingError(f"{path}: {error.message}", error.hint)


__all__ = ["KEPT", "Member", "Recording"]
