"""Checks that GPU memory is free before an engine's start, and freed after its stop."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.processes import GIB, GpuHolder, gib, holders_of, openers
from llmtop.engines.host.orphans import find_orphans
from llmtop.engines.host.processes import Processes, sees_host_pids

BACK_WAIT_S = 10.0  # an H200 frees 130 GiB within a second after the last process has exited
WORTH_A_WORD = GIB  # smaller amounts are not reported: a desktop uses some hundred MiB
_ROOMY = 0.5  # free share of the machine's memory that suffices if the engine's share is unknown
_READ_S = 3.0  # a GPU that fell off the bus may never answer
_BEAT_S = 0.2
_STILL = 3  # equal readings in a row after which the value counts as constant

# Log lines of any engine whose start found too little GPU memory.
_TOO_LITTLE = re.compile(
    r"less than desired \w+ memory utilization|No available memory for the cache"
    r"|[Oo]ut of memory|OutOfMemory|out of GPU memory|Not enough memory"
)


class HeldMemory(Struct, frozen=True):
    """The memory that must be freed after an engine was stopped.

    pids: its processes, () where NVML's pids are not valid. used: bytes in use on each GPU, by
    uuid, before the stop.
    """

    pids: frozenset[int]
    used: Mapping[str, int]


class GpuMemory:
    """Reads GPU memory through NVML; never raises, and gives up on a driver that hangs.

    host_pids: whether NVML's pids are valid here (None: detect it). openers: returns which
    processes have a GPU open; used where pids are not valid. back_wait_s: how long a stop waits for
    the memory. patience_s: time limit of a driver call. note: why the last read returned nothing,
    or the problem of a GPU.
    """

    def __init__(
        self,
        gpus: Gpus,
        processes: Processes,
        *,
        host_pids: bool | None = None,
        openers: Callable[[Collection[int]], Collection[int]] = openers,
        back_wait_s: float = BACK_WAIT_S,
        patience_s: float = _READ_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.note = ""
        self._back_wait_s = back_wait_s
        self._patience_s = patience_s
        self.host_pids = sees_host_pids() if host_pids is None else host_pids
        self._gpus = gpus
        self._openers = openers
        self._processes = processes
        self._monotonic = monotonic
        self._sleep = sleep

    def read(self) -> tuple[GpuSample, ...]:
        """All GPUs with their processes; () without GPUs or if the driver hangs (see note)."""
        found: list[tuple[GpuSample, ...]] = []
        reader = threading.Thread(
            target=lambda: found.append(self._gpus.read(fresh=True)), daemon=True
        )
        reader.start()
        reader.join(self._patience_s)
        self.note = self._gpus.note if found else "the NVIDIA driver does not answer"
        # The memory of MIG instances is part of their GPU's memory and would count twice.
        return tuple(s for s in found[0] if s.mig_of is None) if found else ()

    def holders(
        self, samples: Sequence[GpuSample], engines: Mapping[int, str]
    ) -> tuple[GpuHolder, ...]:
        """The processes that hold GPU memory. engines: names of llmtop's running engines by pid."""
        orphans = find_orphans(self._processes, engines) if self.host_pids else ()
        return holders_of(
            samples,
            self._processes,
            host_pids=self.host_pids,
            engines=engines,
            orphans=orphans,
        )

    def crowding(
        self, gpus: Iterable[int], engines: Callable[[], Mapping[int, str]], share: float | None
    ) -> tuple[str, ...]:
        """A sentence for each of these GPUs whose memory is not free, with the processes.

        share: of the total memory that the engine will take; None if unknown.
        """
        wanted = set(gpus)
        samples = [s for s in self.read() if s.index in wanted]
        samples = [s for s in samples if _worth_a_word(s, share)]
        if not samples:
            return ()
        holders = self.holders(samples, engines())
        return tuple(
            _sentence(sample, [h for h in holders if h.gpu == sample.index], share)
            for sample in samples
        )

    def before_stop(self, pids: Collection[int]) -> HeldMemory | None:
        """The memory to wait for after a stop; None when these processes hold no GPU memory."""
        if not self.host_pids and not self._openers(pids):
            return None
        samples = self.read()
        # The machine's memory also changes without the engine.
        known = [s for s in samples if s.memory_used_bytes is not None and not s.unified]
        used = {s.uuid: s.memory_used_bytes or 0 for s in known}
        if not self.host_pids:
            return HeldMemory(frozenset(), used) if used else None
        return HeldMemory(frozenset(pids), used) if _held_by(samples, pids) is not None else None

    def wait_back(self, held: HeldMemory) -> str:
        """Wait until the memory is free. Returns "", or what is still held, in words."""
        deadline = self._monotonic() + self._back_wait_s
        last: list[int] = []
        while True:
            samples = self.read()
            if not samples:
                return ""  # the driver reports nothing any more
            left = None
            if held.pids:
                left = _held_by(samples, held.pids)
                if left is None:
                    return ""
            else:
                # The owner is unknown; only the total can be observed until it is constant.
                now = sum(s.memory_used_bytes or 0 for s in samples if s.uuid in held.used)
                last = [*last[-_STILL + 1 :], now]
                fell = now < sum(held.used.values()) - WORTH_A_WORD / 4
                if fell and len(last) == _STILL and len(set(last)) == 1:
                    return ""
            if self._monotonic() >= deadline:
                amount = gib(left) if left else "no less than before"
                return (
                    f"{self._back_wait_s:.0f} s after its last process ended the driver still "
                    f"shows {amount} of GPU memory in use"
                )
            self._sleep(_BEAT_S)


def chosen_gpus(
    spec: LaunchSpec, tensor_parallel: OptionValue, environ: Mapping[str, str]
) -> tuple[int, ...]:
    """The indices of the GPUs that a launch will use, if known.

    The given ones; else the first of CUDA_VISIBLE_DEVICES, or of all GPUs, one for each part of the
    model.
    """
    if spec.gpus:
        return spec.gpus
    count = tensor_parallel if isinstance(tensor_parallel, int) and tensor_parallel > 0 else 1
    listed = environ.get("CUDA_VISIBLE_DEVICES", "")
    if not listed:
        return tuple(range(count))
    # A uuid: its index is unknown here, and a wrong index is worse than none.
    indices = [int(word) for word in listed.split(",") if word.strip().isdigit()]
    return tuple(indices[:count])


def about_memory(lines: Iterable[str]) -> bool:
    """Whether the log lines around a failure report too little GPU memory."""
    return any(_TOO_LITTLE.search(line) for line in lines)


def held_bytes(sample: GpuSample) -> int:
    """Bytes in use on a GPU. The sum over its processes if the GPU does not report its memory, or
    if it uses the machine's memory, which other programs use too."""
    if sample.memory_used_bytes is None or sample.unified:
        return sum(process.memory_bytes or 0 for process in sample.processes)
    return sample.memory_used_bytes


def _worth_a_word(sample: GpuSample, share: float | None) -> bool:
    """Whether the memory in use may prevent a start."""
    if held_bytes(sample) >= WORTH_A_WORD:
        return True
    used, total = sample.memory_used_bytes, sample.memory_total_bytes
    if not sample.unified or used is None or total is None:
        return False
    return total - used < (share if share is not None else _ROOMY) * total


def _held_by(samples: Sequence[GpuSample], pids: Collection[int]) -> int | None:
    """Bytes that these processes hold on all GPUs; None when they are on none."""
    mine = [p for s in samples for p in s.processes if p.pid in pids]
    return sum(p.memory_bytes or 0 for p in mine) if mine else None


def _sentence(sample: GpuSample, holders: Sequence[GpuHolder], share: float | None) -> str:
    used, total = sample.memory_used_bytes, sample.memory_total_bytes
    amount = gib(held_bytes(sample) if used is None else used)
    of = f" of {gib(total)}" if total else ""
    if sample.unified:
        text = f"GPU {sample.index} has unified memory: {amount}{of} of the machine are in use"
    else:
        text = f"GPU {sample.index}: {amount}{of} are held"
    worth = [h for h in holders if h.memory_bytes is None or h.memory_bytes >= WORTH_A_WORD / 4]
    named = [f"{h.words}: {gib(h.memory_bytes)}" for h in worth[:3]]
    if len(worth) > 3:
        named.append(f"{len(worth) - 3} more")
    if named:
        text += (", on the GPU by " if sample.unified else " by ") + ", ".join(named)
    free = total - used if total and used is not None else None
    if total and free is not None and share is not None and free < share * total:
        text += f"; {gib(share * total)} are wanted and {gib(free)} are free"
    ways = list(dict.fromkeys(h.way_out for h in worth if h.way_out))
    return text + "".join(f"; free it with: {way}" for way in ways[:2])
