"""Records the reported alerts, so that only one of several watching processes delivers each.

The file is ``alerts.json`` in the state directory, with mode 0600, protected by a lock. A screen
and `llmtop watch` detect the same alert at slightly different times. The first one that claims its
begin, or its end, delivers it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.alerts.rules import Alert, Rule
from llmtop.engines.host.private_files import make_private, read_own, write_whole

FILE, LOCK = "alerts.json", "alerts.lock"
FORGOTTEN_S = 600.0  # an alert that no process watched for so long counts as ended
KEEP_S = 60.0  # between two updates of the times of active alerts
MOST = 1000  # entries; the oldest are dropped first
LIMIT = 1 << 20  # bytes of the file
WAIT_S, RETRY_S = 0.5, 0.02  # for the lock, which other processes hold for milliseconds


class Entry(Struct, frozen=True):
    """The state of one rule for one engine. Times are unix seconds.

    since: when its alert began; None: it has ended. time: when a process last observed this state.
    """

    since: float | None
    time: float


_decode = msgspec.json.Decoder(dict[str, Entry]).decode


class Ledger:
    """The recorded alerts. Its methods do file I/O, which blocks for milliseconds.

    If the folder cannot be written, each process delivers: twice is better than never.
    """

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._wall = folder, wall
        self._kept = wall()

    def claim(self, alert: Alert) -> bool:
        """Record an alert. True if this process must deliver it: no other process has."""
        key = _key(alert.rule, alert.engine)
        try:
            with self._locked() as entries:
                before = entries.get(key)
                begun = before is not None and before.since is not None and self._known(before)
                if not alert.begins:
                    entries[key] = Entry(None, alert.time)
                    return begun
                if begun or (before is not None and self._is_same(alert, before)):
                    return False
                entries[key] = Entry(alert.since, self._wall())
                return True
        except OSError:
            return True

    def since(self, rule: Rule, engine: str) -> float | None:
        """The start of an alert that has not ended, unix seconds; None without one."""
        entry = self._read().get(_key(rule, engine))
        return entry.since if entry is not None and self._known(entry) else None

    def keep(self, active: Iterable[tuple[Rule, str]]) -> None:
        """Update the times of these active alerts; at most once a minute."""
        if 0 <= self._wall() - self._kept < KEEP_S:
            return
        self._kept = self._wall()
        with contextlib.suppress(OSError), self._locked() as entries:
            for rule, engine in active:
                key = _key(rule, engine)
                if (entry := entries.get(key)) is not None and entry.since is not None:
                    entries[key] = Entry(entry.since, self._kept)

    def _is_same(self, alert: Alert, before: Entry) -> bool:
        """Whether this process reports late the begin of an alert that has already ended.

        The alert then began before that end. After the clock was set back this cannot be known.
        """
        return before.since is None and alert.since < before.time <= self._wall() + 1.0

    def _known(self, entry: Entry) -> bool:
        return abs(self._wall() - entry.time) < FORGOTTEN_S

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Entry]]:
        """The entries. Changes are written when the context ends."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not make_private(self._folder):
            raise PermissionError(None, f"{self._folder} is not a private folder of this user")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._folder / LOCK, flags, 0o600)
        try:
            _lock(fd)
            entries = dict(self._read())
            before = dict(entries)
            yield entries
            if entries != before:
                write_whole(self._folder / FILE, msgspec.json.encode(_newest(entries)))
        finally:
            os.close(fd)

    def _read(self) -> Mapping[str, Entry]:
        try:
            return _decode(read_own(self._folder / FILE, LIMIT))
        except (OSError, ValueError):
            return {}


def _lock(fd: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_S)


def _newest(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    kept = sorted(entries.items(), key=lambda item: item[1].time)[-MOST:]
    return dict(kept)


def _key(rule: Rule, engine: str) -> str:
    return "\n".join((rule.name[:200], rule.when.text[:200], engine[:200]))
