"""Processes: their identity, the processes of an engine, and signals.

A process is identified by its pid, the clock tick of its start (field 22 of /proc/PID/stat) and the
boot id. This stays valid after a step of the wall clock and after the kernel reused the pid. A
zombie counts as ended: in a container without an init it is never reaped.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from llmtop.engines.core.records import EngineRecord

PROC = Path("/proc")
LOG_VARIABLE = "LLMTOP_LOG"  # in an engine's environment: its log, which identifies its children
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STAT_BYTES = 4096  # of /proc/PID/stat: 52 numbers and a name of 16 bytes are a tenth of it
_DEAD = frozenset("ZXx")


class Identity(Struct, frozen=True):
    """The unique identity of a process: pid, clock ticks from boot to its start, boot id."""

    pid: int
    start_ticks: int
    boot_id: str


def identity(record: EngineRecord) -> Identity:
    """The process in an engine's record."""
    return Identity(record.pid, record.start_ticks, record.boot_id)


class ProcessEntry(Struct, frozen=True):
    """From /proc/PID/stat: the state letter, the parent, the session, the start tick."""

    pid: int
    state: str
    ppid: int
    session: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether it has ended, reaped or not."""
        return self.state in _DEAD


def parse_stat(text: str) -> ProcessEntry:
    """Read one line of /proc/PID/stat (proc(5)); ValueError when it is not one."""
    # The command name is in parentheses, and may contain spaces and parentheses.
    head, _, tail = text.rpartition(")")
    pid = int(head.partition(" ")[0])
    fields = tail.split()
    if len(fields) < 20:
        raise ValueError("too few fields")
    return ProcessEntry(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def command_of(pid: int) -> tuple[str, ...]:
    """The argument vector of a process; its short name if it is empty; () when it has ended."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
        if not raw.strip(b"\0"):
            raw = (PROC / str(pid) / "comm").read_bytes().strip()
    except OSError:
        return ()
    return tuple(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0"))


def user_of(pid: int) -> int | None:
    """The user id that a process runs as; None when it is gone."""
    try:
        text = (PROC / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return None
    # The owner of /proc/PID is root for processes that are not dumpable; this value is not.
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", text, re.M)
    return int(found[1]) if found else None


def sees_host_pids() -> bool:
    """Whether pids are the machine's pids: false in a container with its own pid namespace."""
    try:
        return os.readlink(PROC / "self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return False


class Processes:
    """Starts, finds and signals processes. No other class does this.

    It keeps the children that it started until it has read their exit codes. The exit code of a
    process is known only to its parent.
    """

    def __init__(self) -> None:
        self._children: dict[Identity, int | None] = {}  # the exit code, None while it runs
        self._lock = threading.Lock()
        try:
            self._boot_id = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            self._boot_id = ""

    @property
    def boot_id(self) -> str:
        """The id of this boot, "" where the kernel does not report it."""
        return self._boot_id

    def start(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        log_fd: int,
        folder: str | None = None,
    ) -> Identity:
        """Start a program in its own session, with its output to ``log_fd``.

        folder: its working directory, None for the present one.

        It outlives this process: no controlling terminal, no pipe to llmtop. OSError when the
        program cannot be executed.
        """
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
            close_fds=True,
        )
        # It is not reaped yet, so the kernel cannot have reused its pid, even if it has ended.
        entry = self.entry(child.pid)
        if entry is None:
            child.kill()
            child.wait()
            raise OSError("the new process does not show in /proc")
        # Popen warns when it is deleted before its child has ended, as with every engine that
        # outlives llmtop. So ``exit_code`` waits for the child, not Popen.
        child.returncode = 0
        identity = Identity(child.pid, entry.start_ticks, self._boot_id)
        with self._lock:
            self._children[identity] = None
        return identity

    def exit_code(self, identity: Identity) -> int | None:
        """The exit code (negative: the signal) of a child of ours that has ended, else None."""
        with self._lock:
            if identity in self._children and self._children[identity] is None:
                with contextlib.suppress(ChildProcessError):
                    pid, status = os.waitpid(identity.pid, os.WNOHANG)
                    if pid:
                        self._children[identity] = os.waitstatus_to_exitcode(status)
            return self._children.get(identity)

    def forget(self, identity: Identity) -> None:
        """Let go of a child whose end has been recorded."""
        if self.exit_code(identity) is not None:
            with self._lock:
                self._children.pop(identity, None)

    def entry(self, pid: int) -> ProcessEntry | None:
        """What /proc says of a pid now, None when there is no such process."""
        try:
            # Asked once a second for each engine: three calls of the system, where a file object
            # makes nine.
            fd = os.open(f"{PROC}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, STAT_BYTES)
            finally:
                os.close(fd)
            return parse_stat(text.decode(errors="replace"))
        except (OSError, ValueError):
            return None

    def alive(self, identity: Identity) -> bool:
        """Whether this very process still runs."""
        return self.state(identity) is not None

    def state(self, identity: Identity) -> str | None:
        """Its state letter as in proc(5) (T: stopped by a signal), None when it has ended."""
        if identity.boot_id != self._boot_id or identity.pid <= 0:
            return None
        entry = self.entry(identity.pid)
        if entry is None or entry.start_ticks != identity.start_ticks or entry.dead:
            return None
        return entry.state

    def lingers(self, identity: Identity) -> bool:
        """Whether it has ended, but its parent has not looked at it yet (a zombie)."""
        entry = self.entry(identity.pid)
        return entry is not None and entry.dead and entry.start_ticks == identity.start_ticks

    def age_s(self, identity: Identity) -> float:
        """Seconds since it began, by the clock that nobody can set (CLOCK_BOOTTIME)."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(0.0, now - identity.start_ticks / _TICKS_PER_S)

    def members(self, leader: Identity, log: Path | None = None) -> list[Identity]:
        """All living processes that belong to an engine, its leader included.

        These are the processes of its session, its descendants, and processes with the engine's log
        as standard output or error: children can survive their parent and create a new session. If
        only a session id is left, one of its processes must have that log as an output or in its
        environment, because a new session may reuse the id.
        """
        if leader.boot_id != self._boot_id or leader.pid <= 0:
            return []
        entries = {e.pid: e for e in self._entries() if e.start_ticks >= leader.start_ticks}
        ended = [e.pid for e in entries.values() if e.dead]
        head = entries.get(leader.pid)
        known = head is not None and head.start_ticks == leader.start_ticks
        for pid in (*ended, os.getpid()):
            entries.pop(pid, None)
        writers = self._writers(entries, log)
        found = set(writers)
        session = {e.pid for e in entries.values() if e.session == leader.pid}
        orphaned = head is None and (log is None or session & writers or _inherited(session, log))
        if known or orphaned:
            found |= session
        if known:
            found |= descendants(leader.pid, entries)
        return [
            Identity(pid, entries[pid].start_ticks, self._boot_id)
            for pid in sorted(found)
            if pid in entries
        ]

    def everyone(self) -> dict[int, ProcessEntry]:
        """All visible running processes, by pid."""
        return {entry.pid: entry for entry in self._entries() if not entry.dead}

    def identify(self, entry: ProcessEntry) -> Identity:
        """The identity of a process."""
        return Identity(entry.pid, entry.start_ticks, self._boot_id)

    def writers(self, log: Path) -> list[Identity]:
        """All running processes with this log as standard output or error."""
        entries = {e.pid: e for e in self._entries() if not e.dead and e.pid != os.getpid()}
        return [
            Identity(pid, entries[pid].start_ticks, self._boot_id)
            for pid in sorted(self._writers(entries, log))
        ]

    def send(self, identity: Identity, signum: signal.Signals) -> bool:
        """Send a signal to exactly this process; False when it has ended."""
        try:
            fd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return False
        except OSError:  # a kernel or a sandbox without pidfd
            if not self.alive(identity):
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, signum)
            return True
        try:
            # Check after opening: if the pid is still this process, so was the opened one.
            if not self.alive(identity):
                return False
            signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def _entries(self) -> Iterator[ProcessEntry]:
        for name in os.listdir(PROC):
            if name.isdigit():
                entry = self.entry(int(name))
                if entry is not None:
                    yield entry

    @staticmethod
    def _writers(pids: Iterable[int], log: Path | None) -> set[int]:
        if log is None:
            return set()
        try:
            wanted = log.stat()
        except OSError:
            return set()
        found = set()
        for pid in pids:
            for fd in ("1", "2"):
                with contextlib.suppress(OSError):
                    held = os.stat(PROC / str(pid) / "fd" / fd)
                    if (held.st_dev, held.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.add(pid)
        return found


def _inherited(pids: Iterable[int], log: Path) -> bool:
    wanted = f"{LOG_VARIABLE}={log}".encode()
    for pid in pids:
        with contextlib.suppress(OSError):
            if wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                return True
    return False


def descendants(root: int, entries: Mapping[int, ProcessEntry]) -> set[int]:
    """The pids below ``root`` in the process tree, without ``root``."""
    children: dict[int, list[int]] = {}
    for entry in entries.values():
        children.setdefault(entry.ppid, []).append(entry.pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found
