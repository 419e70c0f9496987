"""The parts of an engine's GPU memory, from its own start-up report."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.logs.startup import start_lines

GIB = 2**30
# Some engines report a part in pieces.
_WHOLES = {"kv": ("keys", "values"), "graphs": ("prefill_graphs", "decode_graphs")}
READ_CHARS = 4 * 2**20  # of a start's log: vLLM's report is within the first 100 KiB


class MemoryReport(Struct, frozen=True):
    """Bytes that an engine takes on each of its GPUs, reported when it started; None: unknown.

    weights: the model. kv: the KV cache, allocated at the start. graphs: captured CUDA graphs.
    activations: the peak of a step, not held all the time. runtime: the CUDA context and
    libraries, which PyTorch does not count. total: the GPU's memory.
    pids: the engine's processes, () where NVML's pids are not valid. simulated: no real GPU.
    """

    weights: float | None = None
    kv: float | None = None
    graphs: float | None = None
    activations: float | None = None
    runtime: float | None = None
    total: float | None = None
    pids: tuple[int, ...] = ()
    simulated: bool = False

    def is_on(self, processes: Sequence[GpuProcess]) -> bool:
        """Whether the engine uses the GPU of these processes, if known."""
        if not self.pids or not processes:
            return True
        return any(process.pid in self.pids for process in processes)


class Division(Struct, frozen=True):
    """The parts of one GPU's memory in bytes: the engine's parts, then the rest.

    kv_used: the part of the KV cache that holds tokens now; None if unknown. rest: in use, but not
    reported. others: other processes. free: None when the total is unknown.
    """

    weights: float
    kv: float
    kv_used: float | None
    graphs: float
    activations: float
    rest: float
    others: float
    free: float | None
    total: float | None


def divide(
    report: MemoryReport,
    *,
    used: float | None = None,
    total: float | None = None,
    kv_usage: float | None = None,
    processes: Collection[GpuProcess] = (),
) -> Division:
    """Combine what the engine reported with what NVML measures on its GPU.

    used, total: from NVML; without them (a simulated GPU) only the engine's report is used.
    kv_usage: share of the KV cache in use.
    """
    total = report.total if total is None else total
    weights, kv = report.weights or 0.0, report.kv or 0.0
    graphs, activations = report.graphs or 0.0, report.activations or 0.0
    reported = weights + kv + graphs + activations
    others = 0.0
    if any(process.pid in report.pids for process in processes):
        others = float(sum(p.memory_bytes or 0 for p in processes if p.pid not in report.pids))
    if used is None:
        rest, in_use = report.runtime or 0.0, reported + (report.runtime or 0.0)
    else:
        # Activations change during a step; all other parts are held from the start.
        over = max(0.0, reported + others - used)
        activations = max(0.0, activations - over)
        rest, in_use = max(0.0, used - reported - others), used
    return Division(
        weights=weights,
        kv=kv,
        kv_used=kv * kv_usage if kv_usage is not None and report.kv is not None else None,
        graphs=graphs,
        activations=activations,
        rest=rest,
        others=others,
        free=None if total is None else max(0.0, total - in_use),
        total=total,
    )


def find_memory_report(
    lines: Iterable[str], patterns: Sequence[re.Pattern[str]], *, simulated: bool = False
) -> MemoryReport | None:
    """The memory parts that a start's log lines report; None when they report none.

    patterns: an adapter's; their named groups are fields of ``MemoryReport``, GiB each,
    ``consumed`` (weights and runtime together), or pieces of a part. The first match counts: with
    several GPUs each worker reports its own share, and later lines may quote users' text.
    """
    found: dict[str, float] = {}
    for line in lines:
        if "GiB" not in line and "GB" not in line:
            continue
        for pattern in patterns:
            match = pattern.search(line)
            for part, text in match.groupdict().items() if match is not None else ():
                value = _bytes(text)
                if value is not None:
                    found.setdefault(part, value)
    consumed = found.pop("consumed", None)
    if consumed is not None and "weights" in found:
        found.setdefault("runtime", max(0.0, consumed - found["weights"]))
    for whole, pieces in _WHOLES.items():
        sizes = [found.pop(piece) for piece in pieces if piece in found]
        if sizes:
            found.setdefault(whole, sum(sizes))
    return _made(found, simulated) if found else None


def read_memory_report(
    log: Path, started_at: float, patterns: Sequence[re.Pattern[str]], *, simulated: bool = False
) -> MemoryReport | None:
    """The memory report of the start at ``started_at``, from its log; reads at most 4 MiB.

    None when the log does not reach back that far, or has no report.
    """
    if not patterns:
        return None
    return find_memory_report(
        start_lines(log, started_at, READ_CHARS), patterns, simulated=simulated
    )


def _made(found: Mapping[str, float], simulated: bool) -> MemoryReport:
    return MemoryReport(
        weights=found.get("weights"),
        kv=found.get("kv"),
        graphs=found.get("graphs"),
        activations=found.get("activations"),
        runtime=found.get("runtime"),
        total=found.get("total"),
        simulated=simulated,
    )


def _bytes(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value * GIB if value is not None and 0 <= value < 1e6 else None
