"""The processes that hold a GPU's memory: NVML's report combined with the visible processes.

NVML reports the machine's pids. In a container with its own pid namespace such a number belongs to
another process or none, so llmtop names no process there.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from llmtop.engines.core.samples import GpuSample
from llmtop.engines.host.orphans import Orphan
from llmtop.engines.host.ownership import user_name
from llmtop.engines.host.processes import PROC, Processes, command_of, user_of
from llmtop.engines.host.redaction import redact
from llmtop.engines.host.safe_text import brief

GIB = 2**30
_COMMAND_CHARS = 80


class GpuHolder(Struct, frozen=True):
    """One process's memory on one GPU.

    pid: from NVML. known: the process is visible here; else command and user are "" and age_s is
    None. orphan: the pid of the orphaned engine process that it is or belongs to. engine: the
    running engine of llmtop that it belongs to.
    """

    gpu: int
    pid: int
    memory_bytes: int | None
    known: bool
    command: str = ""
    user: str = ""
    age_s: float | None = None
    orphan: int | None = None
    engine: str | None = None

    @property
    def words(self) -> str:
        """The process and its age, without the amount of memory; safe to print."""
        if not self.known:
            return f"a process that is not shown here (pid {self.pid} outside)"
        if self.engine is not None:
            return f"the engine {self.engine!r} (pid {self.pid}, {age(self.age_s)} old)"
        whose = f", user {self.user}" if self.user and self.user != user_name(os.geteuid()) else ""
        lost = "orphaned " if self.orphan is not None else ""
        return f"pid {self.pid} ({lost}{self.command}, {age(self.age_s)} old{whose})"

    @property
    def way_out(self) -> str:
        """The command that frees the memory, "" when llmtop knows none."""
        if self.engine is not None:
            return f"llmtop stop {self.engine}"
        if self.orphan is not None:
            return f"llmtop doctor --end {self.orphan}"
        return ""


def holders_of(
    samples: Sequence[GpuSample],
    processes: Processes,
    *,
    host_pids: bool,
    engines: Mapping[int, str],
    orphans: Sequence[Orphan] = (),
) -> tuple[GpuHolder, ...]:
    """The processes that hold each GPU's memory, in the order of the GPUs, the largest first.

    host_pids: NVML's pids are valid here. engines: names of llmtop's running engines by pid.
    """
    lost = {pid: orphan.pid for orphan in orphans for pid in orphan.pids}
    found = []
    for sample in samples:
        for process in sample.processes:
            entry = processes.entry(process.pid) if host_pids else None
            if entry is None or entry.dead:
                found.append(GpuHolder(sample.index, process.pid, process.memory_bytes, False))
                continue
            found.append(
                GpuHolder(
                    gpu=sample.index,
                    pid=process.pid,
                    memory_bytes=process.memory_bytes,
                    known=True,
                    command=command_words(process.pid),
                    user=user_name(user_of(process.pid)),
                    age_s=processes.age_s(processes.identify(entry)),
                    orphan=lost.get(process.pid),
                    engine=engines.get(process.pid),
                )
            )
    return tuple(sorted(found, key=lambda one: (one.gpu, -(one.memory_bytes or 0))))


def openers(pids: Iterable[int]) -> dict[int, str]:
    """The processes among these that have a GPU's device file open, with their command.

    Inside a container only this is known: which processes may hold the memory, not how much.
    """
    return {pid: command_words(pid) for pid in pids if pid != os.getpid() and _opens_gpu(pid)}


def _opens_gpu(pid: int) -> bool:
    folder = PROC / str(pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            target = os.readlink(folder / name)
            if target.startswith("/dev/nvidia") and target.removeprefix("/dev/nvidia").isdigit():
                return True
    return False


def command_words(pid: int) -> str:
    """A process's command: secrets hidden, short, safe to print."""
    words = redact(command_of(pid))
    # A title that the process set is one argument with spaces: do not quote it.
    text = words[0] if len(words) == 1 else shlex.join(words)
    return brief(text[: _COMMAND_CHARS * 4], _COMMAND_CHARS) or "no name"


def gib(size: float | None) -> str:
    """Bytes in GiB with the unit."""
    return "an unknown amount" if size is None else f"{size / GIB:.1f} GiB"


def age(seconds: float | None) -> str:
    """An age in one or two units."""
    if seconds is None:
        return "?"
    whole = int(seconds)
    for size, unit, small, below in ((86400, "d", "h", 3600), (3600, "h", "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below:02}{small}"
    return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"
