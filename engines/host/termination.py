"""Ends all processes of an engine, also those that ignore SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.host.ownership import is_trusted, user_name
from llmtop.engines.host.processes import Identity, Processes, user_of
from llmtop.engines.host.rank_sockets import remove_sockets

ORPHAN_GRACE_S = 1.0  # for children to end by themselves after the main process has ended
KILL_WAIT_S = 5.0  # a process in the driver may take seconds to die
REAP_WAIT_S = 3.0
_BEAT_S = 0.02
_RESCAN_S = 0.5  # a scan of /proc costs milliseconds on a large machine


class StopFailed(LlmtopError):
    """Processes of an engine survived a SIGKILL."""


def refuse_foreign(name: str, leader: Identity, processes: Processes) -> None:
    """LlmtopError when an engine's process runs as another user, who is not root."""
    user = user_of(leader.pid) if processes.alive(leader) else None
    if user is not None and not is_trusted(user):
        raise LlmtopError(
            f"pid {leader.pid} of {name!r} belongs to the user {user_name(user)}: not ended",
            f"look at it with `ps -fp {leader.pid}`; its owner can end it",
        )


def end(
    processes: Processes,
    leader: Identity,
    log: Path | None,
    *,
    grace_s: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[Identity, ...]:
    """End an engine's processes and return those that survived, normally ().

    SIGTERM goes to the main process, which ends its children in its own order. Children that
    outlive it by a second get SIGTERM too. After ``grace_s`` seconds the remaining processes are
    killed: vLLM's API server waits for open streams for minutes, and its children survive it.
    """
    begin = monotonic()
    known = set(processes.members(leader, log))
    scanned = begin
    if grace_s > 0:
        _signal([leader], signal.SIGTERM, processes)
        # A stopped process handles the signal only after SIGCONT.
        _signal(known, signal.SIGCONT, processes)
    orphaned_at: float | None = None
    asked_all = False
    while (now := monotonic()) < begin + grace_s:
        known = {one for one in known if processes.alive(one)}
        if not known or now >= scanned + _RESCAN_S:
            known |= set(processes.members(leader, log))
            scanned = now
        if not known:
            return ()
        if leader not in known and orphaned_at is None:
            orphaned_at = now
        if orphaned_at is not None and not asked_all and now >= orphaned_at + ORPHAN_GRACE_S:
            asked_all = True
            _signal(known, signal.SIGTERM, processes)
        sleep(_BEAT_S)
    deadline = monotonic() + KILL_WAIT_S
    while True:
        # Scan again each time: an ending process may have started a child.
        known = {one for one in known if processes.alive(one)} | set(processes.members(leader, log))
        if not known or monotonic() >= deadline:
            return tuple(sorted(known, key=lambda one: one.pid))
        _signal(known, signal.SIGKILL, processes)
        sleep(_BEAT_S)


def end_wholly(
    name: str,
    processes: Processes,
    leader: Identity,
    log: Path,
    *,
    grace_s: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """End an engine's processes and wait until its pid is free. StopFailed if one remains."""
    left = end(processes, leader, log, grace_s=grace_s, monotonic=monotonic, sleep=sleep)
    reaped(processes, leader, monotonic=monotonic, sleep=sleep)
    if left:
        pids = ", ".join(str(one.pid) for one in left)
        raise StopFailed(
            f"{name!r} cannot be ended: pid {pids} survived SIGKILL",
            "it hangs in the kernel or a driver (see dmesg), or belongs to another user",
        )


def reaped(
    processes: Processes,
    leader: Identity,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Wait briefly until the new parent reaps an ended main process, so that its pid is free.

    An engine whose llmtop has ended is a child of init. Some inits reap only every second or two,
    and a container may have no init, so the wait is limited.
    """
    deadline = monotonic() + REAP_WAIT_S
    while processes.exit_code(leader) is None and processes.lingers(leader):
        if monotonic() >= deadline:
            return
        sleep(_BEAT_S)


def end_orphans(
    processes: Processes,
    leader: Identity,
    log: Path | None,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    """End the remaining processes of an ended main process. Returns their number."""
    orphans = processes.members(leader, log)
    if orphans:
        # multiprocessing's resource tracker ignores SIGTERM. When the others are killed, it reads
        # the end of its pipe and removes their shared memory.
        _signal(orphans, signal.SIGTERM, processes)
        end(processes, leader, log, grace_s=ORPHAN_GRACE_S, monotonic=monotonic, sleep=sleep)
    return len(orphans)


def remove_socket(path: str | None) -> None:
    """Remove the sockets of all ranks of an ended engine. Other files stay."""
    if path is not None:
        remove_sockets(Path(path))


def _signal(whom: Iterable[Identity], signum: signal.Signals, processes: Processes) -> None:
    for one in whom:
        processes.send(one, signum)
