"""Detects load workers that are alive but silent: stopped by a signal, or without a core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workers.worker_process import WorkerProcess

STOPPED_S = 0.5  # without a beat, after which its process state is read
SILENT_S = 3.0  # without a beat, after which it counts as silent; a busy machine delays it less
STOPPED = ("T", "t")  # process states: stopped by a signal, or by a debugger


class SilentWorkers:
    """Detects silent workers. ever: the reason by process id, of all workers silent at any time."""

    def __init__(self) -> None:
        self.ever: dict[int, str] = {}

    def update(
        self,
        processes: Sequence[WorkerProcess],
        all_counters: Sequence[SharedCounters],
        now_ns: int,
    ) -> dict[int, str]:
        """The reason by process id, of each worker that is silent now."""
        found = {
            process.pid: words
            for counters, process in zip(all_counters, processes, strict=True)
            if process.alive and (words := _why(process.pid, counters.cells[Cell.BEAT], now_ns))
        }
        self.ever |= found
        return found


def _why(pid: int, beat_ns: int, now_ns: int) -> str:
    """Why a worker is silent; "" if it is not. beat_ns: its last beat, 0: none yet."""
    silent_s = (now_ns - beat_ns) / NS
    if not beat_ns or silent_s < STOPPED_S:
        return ""
    if _state(pid) in STOPPED:
        return f"load worker {pid} is stopped: kill -CONT {pid} continues it"
    return f"load worker {pid} was silent for {silent_s:.0f} s" if silent_s >= SILENT_S else ""


def _state(pid: int) -> str:
    """The kernel's letter for the state of a process; "" if it is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return fields[0].decode("ascii", "replace") if fields else ""
