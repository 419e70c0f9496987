"""Detects which process answered: the same as before, its successor, or another server.

Behind a load balancer, requests reach several replicas in turn. Counters fall and start times
change at each reading, as after a restart. But after a real restart the old process never answers
again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from llmtop.engines.core.samples import Reading

SAME_START_S = 1.0  # start times have a resolution of 0.01 s; no engine restarts within 1 s
REMEMBERED_S = 60.0  # without evidence for so long, several servers count as one again
# A process that started so long before the other one's last answer ran beside it, unless its
# machine's clock differs.
_BESIDE_S = 2.0
# No engine starts faster, and none has counted so much just after its start.
_START_S = 3.0
_BEGUN = 100
_STAYED = 5  # answers in a row after which a new process counts as the only one
_LOOKED_BACK_S = 15.0  # no engine restarts and finishes requests within this time
_MOST = 16  # servers that are distinguished


class Answerer(Enum):
    """The process of a reading, compared with the reading before."""

    SAME = "same"
    RESTARTED = "restarted"
    OTHER = "other"  # another server, or not known yet which


class Replicas:
    """Examines each reading of one address in turn."""

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._starts: dict[float, Reading] = {}  # the last answer of each process, by start time
        self._recent: deque[Reading] = deque(maxlen=30)
        self._sign: float | None = None  # last evidence of several servers, monotonic seconds
        self._waiting: int | None = None  # answers of a new process that may be another server

    def several(self, elapsed: float) -> bool:
        """Whether several servers answer in turn."""
        return self._sign is not None and elapsed - self._sign <= REMEMBERED_S

    def identify(self, reading: Reading) -> Answerer:
        """Process the next reading."""
        last, self._last = self._last, reading
        found = Answerer.SAME if last is None else self._compare(reading, last)
        if found is Answerer.RESTARTED:
            self._starts.clear()
            self._recent.clear()
            self._waiting = None
        if reading.process_start is not None:
            self._keep(reading.process_start, reading)
        self._recent.append(reading)
        while reading.elapsed - self._recent[0].elapsed > _LOOKED_BACK_S:
            self._recent.popleft()
        return found

    def _compare(self, new: Reading, last: Reading) -> Answerer:
        if new.elapsed < last.elapsed:
            return Answerer.SAME
        start, before = new.process_start, last.process_start
        if start is not None and before is not None and not _near(start, before):
            return self._by_start(new, start, last, before)
        if _fell(new, last):
            if self._goes_on_from_before(new, last):
                return self._several(new)
            if self.several(new.elapsed):
                return Answerer.OTHER
            if new.elapsed - last.elapsed < _START_S and not _has_just_begun(new):
                self._waiting = 1
                return Answerer.OTHER
            return Answerer.RESTARTED
        if self._waiting is not None and not self.several(new.elapsed):
            self._waiting += 1
            if self._waiting >= _STAYED:
                return Answerer.RESTARTED
        return Answerer.SAME

    def _by_start(self, new: Reading, start: float, last: Reading, before: float) -> Answerer:
        known = any(_near(start, one) for one in self._starts)
        if known or start < before:
            return self._several(new)
        if self.several(new.elapsed):
            return Answerer.OTHER
        if last.time - start > _BESIDE_S and not (_fell(new, last) and _has_just_begun(new)):
            self._waiting = 1
            return Answerer.OTHER
        return Answerer.RESTARTED

    def _several(self, new: Reading) -> Answerer:
        self._sign = new.elapsed
        self._waiting = None
        return Answerer.OTHER

    def _goes_on_from_before(self, new: Reading, last: Reading) -> bool:
        """Whether it continues an earlier answer than the last one: counters of one process only
        increase, so the last answer came from another process."""
        for old in reversed(self._recent):
            if new.elapsed - old.elapsed > _LOOKED_BACK_S:
                return False
            if old is last or not any(old.counters.values()):
                continue
            if old.counters.keys() == new.counters.keys() and not _fell(new, old):
                return True
        return False

    def _keep(self, start: float, reading: Reading) -> None:
        for one in [one for one in self._starts if _near(one, start)]:
            del self._starts[one]
        self._starts[start] = reading
        while len(self._starts) > _MOST:
            del self._starts[next(iter(self._starts))]


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_START_S


def _has_just_begun(reading: Reading) -> bool:
    return max(reading.counters.values(), default=0.0) <= _BEGUN


def _fell(new: Reading, old: Reading) -> bool:
    return any(value < old.counters.get(name, value) for name, value in new.counters.items())
