"""Orphans: processes of an engine whose parent has exited, and which still hold memory.

vLLM's engine core and workers survive a SIGKILL of the API server permanently (measured with 0.30
and 0.32). The next start then finds the GPU full.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Mapping

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.host.ownership import user_name
from llmtop.engines.host.processes import (
    PROC,
    Identity,
    ProcessEntry,
    Processes,
    command_of,
    descendants,
    user_of,
)
from llmtop.engines.host.safe_text import brief
from llmtop.engines.host.termination import end

GRACE_S = 10.0  # an engine core takes 5 s to end on SIGTERM (vLLM 0.32, measured)

# Titles of engine processes that normally have a parent. Titles of possible main processes
# (VLLM::APIServer, sglang::tokenizer_worker) are excluded.
_TITLE = re.compile(
    r"VLLM::(?:EngineCore|Worker|DPCoordinator)"
    r"|sglang::(?:scheduler|detokenizer|data_parallel_controller)"
)
# Words in the command of an engine. In a container an engine can be the first process: its children
# then have parent 1 and are no orphans.
_ENGINE = re.compile(r"vllm|sglang|trtllm|tensorrt_llm", re.I)
_REAPERS = frozenset({"systemd", "init"})  # a user's systemd also adopts orphans
_TITLE_CHARS = 60


class Orphan(Struct, frozen=True):
    """An engine's process whose parent has exited. pids: the process and its descendants.

    age_s: seconds since its start. memory_bytes: main memory of all of them, as far as visible.
    uid, user: its owner. title: its process title, safe to print.
    """

    who: Identity
    title: str
    uid: int | None
    user: str
    age_s: float
    memory_bytes: int
    pids: tuple[int, ...]

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.who.pid


def find_orphans(processes: Processes, ours: Collection[int] = ()) -> tuple[Orphan, ...]:
    """All visible orphans, oldest first. ours: the pids of llmtop's running engines."""
    everyone = processes.everyone()
    found = []
    for entry in everyone.values():
        if entry.pid in ours or not _taken_in(entry, everyone):
            continue
        title = _title(entry.pid)
        if _TITLE.match(title):
            found.append(_orphan(entry, title, everyone, processes))
    return tuple(sorted(found, key=lambda one: one.who.start_ticks))


def look_up(pid: int, processes: Processes, ours: Collection[int] = ()) -> Orphan:
    """The orphan with this pid. Raises UsageError if it is none, or belongs to another user."""
    for one in find_orphans(processes, ours):
        if one.pid != pid:
            continue
        if one.uid != os.geteuid():
            raise UsageError(
                f"pid {pid} ({one.title}) belongs to the user {one.user}",
                "ask that user or an administrator to end it",
            )
        return one
    if pid in ours:
        raise UsageError(
            f"pid {pid} belongs to a living engine of llmtop", "see `llmtop ps` and `llmtop stop`"
        )
    if processes.entry(pid) is None:
        raise UsageError(f"there is no process {pid}", "`llmtop doctor` lists the orphans")
    raise UsageError(
        f"pid {pid} ({_title(pid) or 'no title'}) is not an orphan of an engine",
        "llmtop ends only orphans; `llmtop doctor` lists them",
    )


def end_orphan(
    one: Orphan,
    processes: Processes,
    ours: Collection[int] = (),
    *,
    grace_s: float = GRACE_S,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End an orphan and its descendants: SIGTERM, ``grace_s`` seconds, SIGKILL.

    Checks again first: UsageError when this process is no longer an orphan. LlmtopError when it
    survives SIGKILL.
    """
    again = look_up(one.pid, processes, ours)
    if again.who != one.who:
        raise UsageError(f"pid {one.pid} is another process by now", "run llmtop doctor again")
    left = end(processes, one.who, None, grace_s=grace_s, monotonic=monotonic, sleep=sleep)
    if left:
        pids = ", ".join(str(survivor.pid) for survivor in left)
        raise LlmtopError(
            f"pid {pids} survived SIGKILL", "it hangs in the kernel or a driver: see dmesg"
        )


def _taken_in(entry: ProcessEntry, everyone: Mapping[int, ProcessEntry]) -> bool:
    """Whether its parent adopts orphans and is not an engine."""
    parent = entry.ppid
    if parent == 1:
        return not any(_ENGINE.search(word) for word in command_of(1))
    return parent in everyone and _short_name(parent) in _REAPERS


def _orphan(
    entry: ProcessEntry, title: str, everyone: Mapping[int, ProcessEntry], processes: Processes
) -> Orphan:
    who = processes.identify(entry)
    pids = (entry.pid, *sorted(descendants(entry.pid, everyone)))
    uid = user_of(entry.pid)
    memory = sum(_resident(pid) for pid in pids)
    return Orphan(who, title, uid, user_name(uid), processes.age_s(who), memory, pids)


def _title(pid: int) -> str:
    return brief(" ".join(command_of(pid)), _TITLE_CHARS)


def _short_name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _resident(pid: int) -> int:
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
