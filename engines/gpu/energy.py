"""Energy and utilisation of an engine's GPUs, if NVML reports them."""

from __future__ import annotations

from llmtop.engines.core.records import EngineRecord
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.host.processes import Identity, Processes


class EngineEnergy:
    """Joules since the driver was loaded, summed over the GPUs that an engine runs on.

    The first call finds the GPUs on which a process of the engine holds memory. NVML counts whole
    GPUs, so the energy includes other processes on the same GPU.
    """

    def __init__(self, record: EngineRecord, gpus: Gpus, processes: Processes) -> None:
        self._record, self._gpus, self._processes = record, gpus, processes
        self._uuids: frozenset[str] = frozenset()

    def __call__(self) -> float | None:
        """The sum now; None for a simulated engine, or when a GPU does not report it."""
        if self._record.simulated:
            return None
        found = [gpu for gpu in self._gpus.read() if gpu.mig_of is None]
        if not self._uuids:
            self._uuids = self._held(found)
        energies = [gpu.energy_j for gpu in found if gpu.uuid in self._uuids]
        known = [energy for energy in energies if energy is not None]
        if not known or len(known) < len(self._uuids):
            return None
        return sum(known)

    def utilisation(self) -> float | None:
        """Share of recent time in which a kernel ran (NVML's utilisation), mean over its GPUs.

        None for a simulated engine, or when a GPU does not report it.
        """
        if self._record.simulated:
            return None
        found = [gpu for gpu in self._gpus.read() if gpu.mig_of is None]
        uuids = self._uuids or self._held(found)
        busy = [gpu.utilisation for gpu in found if gpu.uuid in uuids]
        known = [one for one in busy if one is not None]
        return sum(known) / len(known) if known and len(known) == len(uuids) else None

    @property
    def count(self) -> int | None:
        """The number of GPUs that the engine uses; None before a call found any."""
        return len(self._uuids) or None

    def close(self) -> None:
        """Release the driver."""
        self._gpus.close()

    def _held(self, found: list[GpuSample]) -> frozenset[str]:
        record = self._record
        leader = Identity(record.pid, record.start_ticks, record.boot_id)
        pids = {member.pid for member in self._processes.members(leader)}
        return frozenset(
            gpu.uuid for gpu in found if any(process.pid in pids for process in gpu.processes)
        )
