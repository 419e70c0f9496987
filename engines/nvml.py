"""NVIDIA's management library as a seam: one method a fact, plain values, one kind of error.

The only module that touches pynvml. NVML calls block and can be slow or never come back when a GPU
has fallen off the bus: whoever calls does so from a thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from llmtop.engines.samples import GpuProcess

Handle = object  # a device as the library gives it; means nothing to anybody else

_LIBRARY = "libnvidia-ml.so.1"

# Numbers of nvmlReturn_t in nvml.h. A newer driver or another board answers the first group to
# single questions: the fact is not to be had, all is well otherwise.
_NOT_TOLD = frozenset({2, 3, 4, 6, 13, 21, 25, 26})
_GONE = frozenset({1, 9, 12, 18})  # uninitialised, no driver, no library, another version
_WORDS = {
    4: "no permission to read it",
    9: "the NVIDIA driver is not loaded",
    12: "no NVIDIA driver found",
    15: "the GPU is lost (fallen off the bus)",
    16: "the GPU needs a reset",
    18: "the NVIDIA driver was updated and is not loaded anew",
}


class NvmlError(Exception):
    """A call that brought nothing. words: why. told: False when this board just has no such fact.

    gone: the library or driver as a whole cannot be used (any more).
    """

    def __init__(self, words: str, told: bool = True, gone: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.told = told
        self.gone = gone


class Nvml(Protocol):
    """What is asked of the library. Every method raises NvmlError and nothing else."""

    def start(self) -> None:
        """Load and initialise."""

    def stop(self) -> None:
        """Let go of the driver."""

    def driver_version(self) -> str:
        """The driver's version, as in ``580.95.05``."""

    def cuda_version(self) -> str:
        """The newest CUDA that this driver runs, as in ``13.0``."""

    def devices(self) -> Sequence[Handle | NvmlError]:
        """All GPUs in the driver's order; an error in the place of one that cannot be opened."""

    def instances(self, device: Handle) -> Sequence[Handle]:
        """The MIG instances of a GPU, () when it is not divided."""

    def name(self, device: Handle) -> str:
        """The board's name."""

    def uuid(self, device: Handle) -> str:
        """What identifies the device for ever."""

    def memory(self, device: Handle) -> tuple[int, int]:
        """Total and used bytes; what the driver keeps for itself is in neither's use."""

    def utilisation(self, device: Handle) -> float:
        """Share of the last moments in which a kernel ran, 0..1. Says nothing about saturation."""

    def power_w(self, device: Handle) -> float:
        """Draw now, watts."""

    def power_limit_w(self, device: Handle) -> float:
        """The limit in force, watts."""

    def energy_j(self, device: Handle) -> float:
        """Since the driver was loaded, joules."""

    def temperature_c(self, device: Handle) -> float:
        """Of the GPU, degrees Celsius."""

    def sm_clock_mhz(self, device: Handle) -> int:
        """Clock of the multiprocessors now."""

    def clock_reasons(self, device: Handle) -> int:
        """Why the clocks are where they are: bits, nvmlClocksEventReasons in nvml.h."""

    def processes(self, device: Handle) -> tuple[GpuProcess, ...]:
        """Who holds memory on it, by the host's pids."""


class PyNvml:
    """The real ``Nvml``. module: stands for pynvml, which is imported in ``start`` otherwise."""

    def __init__(self, module: Any = None) -> None:
        self._nvml = module

    def start(self) -> None:
        """Load and initialise."""
        if self._nvml is None:
            try:
                ctypes.CDLL(_LIBRARY)  # pynvml costs 2.3 MiB: not where there is no driver
            except OSError:
                raise NvmlError(_WORDS[12], gone=True) from None
            import pynvml

            self._nvml = pynvml
        self._call("nvmlInit")

    def stop(self) -> None:
        """Let go of the driver."""
        if self._nvml is not None:
            self._call("nvmlShutdown")

    def driver_version(self) -> str:
        """The driver's version, as in ``580.95.05``."""
        return _text(self._call("nvmlSystemGetDriverVersion"))

    def cuda_version(self) -> str:
        """The newest CUDA that this driver runs, as in ``13.0``."""
        names = ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
        version = int(self._first(names))  # 13000 + 10 x minor, nvml.h
        return f"{version // 1000}.{version % 1000 // 10}"

    def devices(self) -> Sequence[Handle | NvmlError]:
        """All GPUs in the driver's order; an error in the place of one that cannot be opened."""
        found: list[Handle | NvmlError] = []
        for index in range(self._call("nvmlDeviceGetCount")):
            try:
                found.append(self._call("nvmlDeviceGetHandleByIndex", index))
            except NvmlError as error:
                found.append(error)
        return found

    def instances(self, device: Handle) -> Sequence[Handle]:
        """The MIG instances of a GPU, () when it is not divided."""
        try:
            enabled = self._call("nvmlDeviceGetMigMode", device)[0]
        except NvmlError as error:
            if error.told:
                raise
            return ()
        found = []
        for index in range(self._call("nvmlDeviceGetMaxMigDeviceCount", device) if enabled else 0):
            try:
                found.append(self._call("nvmlDeviceGetMigDeviceHandleByIndex", device, index))
            except NvmlError as error:  # an empty place: the numbers have gaps
                if error.told:
                    raise
        return found

    def name(self, device: Handle) -> str:
        """The board's name."""
        return _text(self._call("nvmlDeviceGetName", device))

    def uuid(self, device: Handle) -> str:
        """What identifies the device for ever."""
        return _text(self._call("nvmlDeviceGetUUID", device))

    def memory(self, device: Handle) -> tuple[int, int]:
        """Total and used bytes; what the driver keeps for itself is in neither's use."""
        try:
            # Version 1 counts the driver's own 0.6 GiB (H200, driver 580) as used, version 2 not.
            version = getattr(self._nvml, "nvmlMemory_v2", None)
            info = self._call("nvmlDeviceGetMemoryInfo", device, version)
        except NvmlError as error:
            if error.told:
                raise
            info = self._call("nvmlDeviceGetMemoryInfo", device)
        return int(info.total), int(info.used)

    def utilisation(self, device: Handle) -> float:
        """Share of the last moments in which a kernel ran, 0..1. Says nothing about saturation."""
        return float(self._call("nvmlDeviceGetUtilizationRates", device).gpu) / 100

    def power_w(self, device: Handle) -> float:
        """Draw now, watts."""
        return float(self._call("nvmlDeviceGetPowerUsage", device)) / 1000

    def power_limit_w(self, device: Handle) -> float:
        """The limit in force, watts."""
        return float(self._call("nvmlDeviceGetEnforcedPowerLimit", device)) / 1000

    def energy_j(self, device: Handle) -> float:
        """Since the driver was loaded, joules."""
        return float(self._call("nvmlDeviceGetTotalEnergyConsumption", device)) / 1000

    def temperature_c(self, device: Handle) -> float:
        """Of the GPU, degrees Celsius."""
        # The first goes with CUDA 14, the second came with driver 560; 0 is the GPU's own sensor.
        return float(
            self._first(("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), device, 0)
        )

    def sm_clock_mhz(self, device: Handle) -> int:
        """Clock of the multiprocessors now."""
        return int(self._call("nvmlDeviceGetClockInfo", device, 1))  # 1: NVML_CLOCK_SM

    def clock_reasons(self, device: Handle) -> int:
        """Why the clocks are where they are: bits, nvmlClocksEventReasons in nvml.h."""
        new, old = (
            f"nvmlDeviceGetCurrentClocks{word}Reasons" for word in ("Event", "Throttle")
        )  # renamed with driver 535
        return int(self._first((new, old), device))

    def processes(self, device: Handle) -> tuple[GpuProcess, ...]:
        """Who holds memory on it, by the host's pids."""
        held: dict[int, int | None] = {}
        refused: list[NvmlError] = []
        kinds = ("Compute", "Graphics", "MPSCompute")
        for kind in kinds:
            names = [f"nvmlDeviceGet{kind}RunningProcesses_v{version}" for version in (3, 2)]
            try:
                found = self._first(names, device)
            except NvmlError as error:
                if error.told:
                    raise
                refused.append(error)
                continue
            for process in found:
                known, more = held.get(process.pid), process.usedGpuMemory
                held[process.pid] = max((n for n in (known, more) if n is not None), default=None)
        if len(refused) == len(kinds):
            raise refused[0]
        return tuple(GpuProcess(pid, memory) for pid, memory in sorted(held.items()))

    def _first(self, names: Iterable[str], *args: object) -> Any:
        """The first of some functions that this driver and this pynvml both have."""
        refusal = NvmlError("not told", told=False)
        for name in names:
            try:
                return self._call(name, *args)
            except NvmlError as error:
                if error.told:
                    raise
                refusal = error
        raise refusal

    def _call(self, name: str, *args: object) -> Any:
        function: Callable[..., Any] | None = getattr(self._nvml, name, None)
        if function is None:
            raise NvmlError(f"this pynvml has no {name}", told=False)
        try:
            return function(*args)
        except self._nvml.NVMLError as error:
            code = int(getattr(error, "value", 999))
            words = _WORDS.get(code, str(error)[:100])
            raise NvmlError(words, told=code not in _NOT_TOLD, gone=code in _GONE) from None


class FakeGpu(Struct):
    """A GPU for tests. None: the board does not tell; an NvmlError: raised when asked."""

    name: str | NvmlError | None = "NVIDIA H200"
    uuid: str | NvmlError | None = "GPU-00000000-0000-0000-0000-000000000000"
    memory: tuple[int, int] | NvmlError | None = None
    utilisation: float | NvmlError | None = None
    power_w: float | NvmlError | None = None
    power_limit_w: float | NvmlError | None = None
    energy_j: float | NvmlError | None = None
    temperature_c: float | NvmlError | None = None
    sm_clock_mhz: int | NvmlError | None = None
    clock_reasons: int | NvmlError | None = None
    processes: tuple[GpuProcess, ...] | NvmlError | None = ()
    instances: list[FakeGpu] = field(default_factory=list)


class FakeNvml:
    """An ``Nvml`` over a list of fake GPUs that a test may change between reads.

    broken: raised by ``start`` and by every question while it is set. asked: each question so far.
    """

    def __init__(self, *gpus: FakeGpu, broken: NvmlError | None = None) -> None:
        self.gpus: list[FakeGpu | NvmlError] = list(gpus)
        self.broken = broken
        self.asked: list[str] = []
        self.started = False

    def start(self) -> None:
        """Load and initialise."""
        self._check("start")
        self.started = True

    def stop(self) -> None:
        """Let go of the driver."""
        self.started = False

    def driver_version(self) -> str:
        """The driver's version."""
        self._check("driver_version")
        return "580.95.05"

    def cuda_version(self) -> str:
        """The newest CUDA that this driver runs."""
        self._check("cuda_version")
        return "13.0"

    def devices(self) -> Sequence[Handle | NvmlError]:
        """All GPUs."""
        self._check("devices")
        return tuple(self.gpus)

    def instances(self, device: Handle) -> Sequence[Handle]:
        """MIG instances."""
        self._check("instances")
        assert isinstance(device, FakeGpu)
        return tuple(device.instances)

    def __getattr__(self, question: str) -> Callable[[Handle], Any]:
        if question not in FakeGpu.__struct_fields__:
            raise AttributeError(question)

        def answer(device: Handle) -> Any:
            self._check(question)
            value = getattr(device, question)
            if value is None:
                raise NvmlError("not supported", told=False)
            if isinstance(value, NvmlError):
                raise value
            return value

        return answer

    def _check(self, question: str) -> None:
        self.asked.append(question)
        if self.broken is not None:
            raise self.broken


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
