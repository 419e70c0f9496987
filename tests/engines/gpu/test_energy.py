from __future__ import annotations

import os

from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.energy import EngineEnergy
from llmtop.engines.host.processes import Processes
from llmtop.values import replace
from tests.fake_nvml import FakeGpu, FakeNvml


class Family(Processes):
    """An engine of one process: this one."""

    def members(self, leader: object, log: object = None) -> list[object]:  # type: ignore[override]
        return [leader]


RECORD = EngineRecord(
    LaunchSpec("vllm", "v", "m", "127.0.0.1", 8000), ("vllm",), (), os.getpid(), 1, "boot",
    "http://127.0.0.1:8000", "/log", None, 0.0,
)  # fmt: skip


def gpu(uuid: str, energy_j: float | None, *pids: int) -> FakeGpu:
    processes = tuple(GpuProcess(pid, 2**30) for pid in pids)
    return FakeGpu(uuid=uuid, energy_j=energy_j, processes=processes)


def test_only_the_engines_own_gpus_count() -> None:
    me = os.getpid()
    nvml = FakeNvml(gpu("a", 100.0, me), gpu("b", 1000.0, me + 1), gpu("c", 20.0, me, me + 1))
    energy = EngineEnergy(RECORD, Gpus(nvml), Family())
    assert energy.count is None
    assert energy() == 120.0
    assert energy.count == 2


def test_what_is_not_told_is_not_guessed() -> None:
    me = os.getpid()
    assert EngineEnergy(RECORD, Gpus(FakeNvml()), Family())() is None
    assert EngineEnergy(RECORD, Gpus(FakeNvml(gpu("a", 5.0, me + 1))), Family())() is None
    half = FakeNvml(gpu("a", 100.0, me), gpu("b", None, me))
    assert EngineEnergy(RECORD, Gpus(half), Family())() is None
    simulated = replace(RECORD, simulated=True)
    assert EngineEnergy(simulated, Gpus(FakeNvml(gpu("a", 5.0, me))), Family())() is None


def test_a_gpu_is_as_busy_as_nvml_says_and_only_the_engines_own_count() -> None:
    me = os.getpid()
    nvml = FakeNvml(
        replace(gpu("a", 1.0, me), utilisation=0.9),
        replace(gpu("b", 1.0, me + 1), utilisation=0.0),
        replace(gpu("c", 1.0, me), utilisation=0.5),
    )
    assert EngineEnergy(RECORD, Gpus(nvml), Family()).utilisation() == 0.7
    silent = FakeNvml(gpu("a", 1.0, me), replace(gpu("c", 1.0, me), utilisation=None))
    assert EngineEnergy(RECORD, Gpus(silent), Family()).utilisation() is None
    simulated = replace(RECORD, simulated=True)
    assert EngineEnergy(simulated, Gpus(nvml), Family()).utilisation() is None
