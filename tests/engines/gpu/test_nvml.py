"""The real NVML seam over a stand-in for pynvml: old drivers, missing calls, errors in words."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu import nvml_library as seam
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.nvml import Nvml, NvmlError
from llmtop.engines.gpu.nvml_library import PyNvml
from tests.fake_nvml import FakeNvml

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, NO_FUNCTION, LOST, MISMATCH = 3, 4, 6, 13, 15, 18


class Refused(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


def refuse(code: int) -> Callable[..., Any]:
    def call(*args: object) -> Any:
        raise Refused(code)

    return call


def process(pid: int, memory: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


def library(**calls: Callable[..., Any]) -> PyNvml:
    """pynvml with the calls given (without their ``nvmlDevice``) and no others."""
    names = {f"nvmlDevice{name}": call for name, call in calls.items()}
    return PyNvml(SimpleNamespace(NVMLError=Refused, nvmlMemory_v2=33554472, **names))


def test_units() -> None:
    found = library(
        GetPowerUsage=lambda d: 692_000,
        GetEnforcedPowerLimit=lambda d: 700_000,
        GetTotalEnergyConsumption=lambda d: 2_664_139,
        GetUtilizationRates=lambda d: SimpleNamespace(gpu=98, memory=40),
        GetClockInfo=lambda d, kind: {1: 1530}[kind],
        GetTemperature=lambda d, sensor: {0: 64}[sensor],
        GetName=lambda d: b"NVIDIA H200",
        GetUUID=lambda d: "GPU-0",
    )
    assert found.power_w(0) == 692
    assert found.power_limit_w(0) == 700
    assert found.energy_j(0) == pytest.approx(2664.139)
    assert found.utilisation(0) == 0.98
    assert found.sm_clock_mhz(0) == 1530
    assert found.temperature_c(0) == 64
    assert (found.name(0), found.uuid(0)) == ("NVIDIA H200", "GPU-0")


def test_memory_leaves_out_what_the_driver_keeps_where_it_can_be_told() -> None:
    def memory(device: object, version: int | None = None) -> Any:
        return SimpleNamespace(total=150_754_820_096, used=0 if version else 644_939_776)

    def old(device: object, version: int | None = None) -> Any:
        if version:
            raise Refused(NO_FUNCTION)
        return memory(device)

    assert library(GetMemoryInfo=memory).memory(0) == (150_754_820_096, 0)
    assert library(GetMemoryInfo=old).memory(0) == (150_754_820_096, 644_939_776)


def test_calls_that_were_renamed() -> None:
    old = library(GetCurrentClocksThrottleReasons=lambda d: 4)
    assert old.clock_reasons(0) == 4
    new = library(
        GetCurrentClocksEventReasons=lambda d: 8, GetCurrentClocksThrottleReasons=lambda d: 4
    )
    assert new.clock_reasons(0) == 8
    mixed = library(
        GetCurrentClocksEventReasons=refuse(NO_FUNCTION),
        GetCurrentClocksThrottleReasons=lambda d: 4,
    )
    assert mixed.clock_reasons(0) == 4
    assert library(GetTemperatureV=lambda d, sensor: 50).temperature_c(0) == 50


def test_processes_of_all_kinds_once_each() -> None:
    found = library(
        GetComputeRunningProcesses_v3=refuse(NO_FUNCTION),
        GetComputeRunningProcesses_v2=lambda d: [process(30, 5), process(20, None)],
        GetGraphicsRunningProcesses_v3=lambda d: [process(30, 7), process(10, 1)],
        GetMPSComputeRunningProcesses_v3=refuse(NOT_SUPPORTED),
    )
    assert found.processes(0) == (GpuProcess(10, 1), GpuProcess(20, None), GpuProcess(30, 7))
    with pytest.raises(NvmlError) as caught:
        library().processes(0)
    assert not caught.value.told


def test_mig_instances_with_empty_places() -> None:
    def at(device: object, place: int) -> str:
        if place % 2:
            raise Refused(NOT_FOUND)
        return f"mig{place}"

    found = library(
        GetMigMode=lambda d: [1, 1],
        GetMaxMigDeviceCount=lambda d: 5,
        GetMigDeviceHandleByIndex=at,
    )
    assert list(found.instances(0)) == ["mig0", "mig2", "mig4"]
    assert list(library(GetMigMode=lambda d: [0, 1]).instances(0)) == []
    assert list(library(GetMigMode=refuse(NOT_SUPPORTED)).instances(0)) == []


@pytest.mark.parametrize(
    ("code", "told", "gone"),
    [
        (NOT_SUPPORTED, False, False),
        (NO_PERMISSION, False, False),
        (NO_FUNCTION, False, False),
        (LOST, True, False),
        (MISMATCH, True, True),
        (999, True, False),
    ],
)
def test_what_an_error_means(code: int, told: bool, gone: bool) -> None:
    with pytest.raises(NvmlError) as caught:
        library(GetPowerUsage=refuse(code)).power_w(0)
    assert (caught.value.told, caught.value.gone) == (told, gone)
    assert caught.value.words


def test_a_gpu_that_cannot_be_opened_leaves_its_place() -> None:
    def at(index: int) -> str:
        if index == 0:
            raise Refused(LOST)
        return "second"

    found = library(GetCount=lambda: 2, GetHandleByIndex=at).devices()
    assert isinstance(found[0], NvmlError)
    assert found[1] == "second"


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_LIBRARY", "libnvidia-ml-is-not-here.so.1")
    gpus = Gpus()
    assert gpus.read() == ()
    assert gpus.note == "no NVIDIA driver found"
    gpus.close()


def test_the_fake_fits_the_seam() -> None:
    fake: Nvml = FakeNvml()
    assert list(fake.devices()) == []


def test_the_calls_exist_in_pynvml() -> None:
    """Each name that is asked for, or its other spelling, is in the package that we depend on."""
    import inspect
    import re

    import pynvml

    names = set(re.findall(r'"(nvml[A-Z]\w+)"', inspect.getsource(seam)))
    assert len(names) > 15
    assert {name for name in names if not hasattr(pynvml, name)} == set()
    for kind in ("Compute", "Graphics", "MPSCompute"):
        assert hasattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v3")
    for word in ("Event", "Throttle"):
        assert hasattr(pynvml, f"nvmlDeviceGetCurrentClocks{word}Reasons")
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
