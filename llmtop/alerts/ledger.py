"""Which alerts were reported, so that one of several watching processes delivers each.

``alerts.json`` in the state directory, mode 0600, under a lock. A screen and `llmtop watch` see the
same alert at slightly different moments: the first one that claims its begin, or its end, delivers.
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
FORGOTTEN_S = 600.0  # without anybody who watches it, an alert counts as over
KEEP_S = 60.0
MOST = 1000  # entries; the oldest go first
LIMIT = 1 << 20
WAIT_S, LOOK_S = 0.5, 0.02  # for the lock: another process has it for milliseconds


class Entry(Struct, frozen=True):
    """One rule for one engine. since: when its alert began, None: it is over. time: when that was
    last seen. All unix seconds."""

    since: float | None
    time: float


_decode = msgspec.json.Decoder(dict[str, Entry]).decode


class Ledger:
    """Blocks for milliseconds. A folder that cannot be written delivers twice rather than never."""

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._wall = folder, wall
        self._kept = wall()

    def claim(self, alert: Alert) -> bool:
        """Whether this process is to deliver it: no other one has."""
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
        """The start of an alert without a recorded end; None without one."""
        entry = self._read().get(_key(rule, engine))
        return entry.since if entry is not None and self._known(entry) else None

    def keep(self, active: Iterable[tuple[Rule, str]]) -> None:
        """Say that these are watched; does something once a minute only."""
        if 0 <= self._wall() - self._kept < KEEP_S:
            return
        self._kept = self._wall()
        with contextlib.suppress(OSError), self._locked() as entries:
            for rule, engine in active:
                key = _key(rule, engine)
                if (entry := entries.get(key)) is not None and entry.since is not None:
                    entries[key] = Entry(entry.since, self._kept)

    def _is_same(self, alert: Alert, before: Entry) -> bool:
        """Whether an alert that begins is the one that is over, seen later by this process: it
        began before that end. A clock that was set back says nothing."""
        return before.since is None and alert.since < before.time <= self._wall() + 1.0

    def _known(self, entry: Entry) -> bool:
        return abs(self._wall() - entry.time) < FORGOTTEN_S

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Entry]]:
        """The entries, written back at the end."""
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
    ends = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise
        time.sleep(LOOK_S)


def _newest(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    kept = sorted(entries.items(), key=lambda item: item[1].time)[-MOST:]
    return dict(kept)


def _key(rule: Rule, engine: str) -> str:
    return "\n".join((rule.name[:200], rule.when.text[:200], engine[:200]))
