"""The real NVML, through pynvml. Every failure raises ``NvmlError``.

The only module that uses pynvml. The C library may have another version, or run in a container or
under WSL: symbols can be missing, texts not UTF-8, structs half filled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.nvml import MISMATCH, NO_PERMISSION, NOT_SUPPORTED, Handle, NvmlError
from llmtop.engines.host.safe_text import clean

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LIBRARY = "libnvidia-ml.so.1"
_MOST_DEVICES = 256  # of one machine; a larger count is invalid
_LONGEST_TEXT = 200
# GPUs in the processor's package, by the names that their driver reports. Grace Hopper and similar
# GPUs have their own memory.
_INTEGRATED = re.compile(r"\b(GB10|Jetson|Tegra|Orin|Xavier|Thor|nvgpu)\b", re.IGNORECASE)

# Numbers of nvmlReturn_t in nvml.h. A newer driver or another board returns the first group for
# single calls: only that fact is not available.
_NOT_TOLD = frozenset({2, 3, 4, 6, 13, 21, 25, 26})
_GONE = frozenset({1, 9, 12, 18})  # uninitialised, no driver, no library, another version
_WORDS = {
    4: NO_PERMISSION,
    9: "the NVIDIA driver is not loaded",
    12: "no NVIDIA driver found",
    15: "the GPU is lost (fallen off the bus)",
    16: "the GPU needs a reset",
    MISMATCH: "the NVIDIA driver and its library are of different versions",
}


def _guarded(fact: Callable[_P, _T]) -> Callable[_P, _T]:
    """The fact, with every other exception turned into "this board does not report it"."""

    @wraps(fact)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return fact(*args, **kwargs)
        except NvmlError:
            raise
        except Exception as error:  # a missing field, a value of another type
            raise _unreadable(error) from None

    return asked


def _unreadable(error: Exception) -> NvmlError:
    return NvmlError(f"the driver's answer cannot be read ({type(error).__name__})", told=False)


class PyNvml:
    """The real ``Nvml``. module: stands for pynvml, which is imported in ``start`` otherwise."""

    def __init__(self, module: Any = None) -> None:
        self._nvml = module

    @_guarded
    def start(self) -> None:
        """Load and initialise."""
        if self._nvml is None:
            import ctypes  # the recorder never needs it

            try:
                ctypes.CDLL(_LIBRARY)  # pynvml takes 2.3 MiB: import it only if a driver exists
            except OSError:
                raise NvmlError(_WORDS[12], gone=True) from None
            try:
                import pynvml
            except Exception as error:
                raise NvmlError(f"pynvml cannot be imported: {error}"[:200], gone=True) from None

            self._nvml = pynvml
        try:
            self._call("nvmlInit")
        except NvmlError as error:
            words = error.words
            if error.code not in _GONE:
                words = f"the NVIDIA driver does not start: {words}"
            raise NvmlError(words, gone=True, code=error.code) from None

    @_guarded
    def stop(self) -> None:
        """Release the driver."""
        if self._nvml is not None:
            self._call("nvmlShutdown")

    @_guarded
    def driver_version(self) -> str:
        """The driver's version, as in ``580.95.05``."""
        return self._text("nvmlSystemGetDriverVersion")

    @_guarded
    def cuda_version(self) -> str:
        """The newest CUDA that this driver runs, as in ``13.0``."""
        names = ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
        version = int(self._first(names))  # 13000 + 10 x minor, nvml.h
        if not 1000 <= version < 100_000:
            raise NvmlError("no such CUDA version", told=False)
        return f"{version // 1000}.{version % 1000 // 10}"

    @_guarded
    def devices(self) -> Sequence[Handle | NvmlError]:
        """All GPUs in the driver's order; an error in place of a GPU that cannot be opened."""
        found: list[Handle | NvmlError] = []
        count = self._call("nvmlDeviceGetCount")
        if not 0 <= count <= _MOST_DEVICES:
            raise NvmlError(f"the driver reports {count} GPUs", gone=True)
        for index in range(count):
            try:
                found.append(self._call("nvmlDeviceGetHandleByIndex", index))
            except NvmlError as error:
                found.append(error)
        return found

    @_guarded
    def instances(self, device: Handle) -> Sequence[Handle]:
        """The MIG instances of a GPU, () without MIG."""
        try:
            enabled = self._call("nvmlDeviceGetMigMode", device)[0]
        except NvmlError as error:
            if error.told:
                raise
            return ()
        found = []
        count = self._call("nvmlDeviceGetMaxMigDeviceCount", device) if enabled else 0
        for index in range(min(count, _MOST_DEVICES)):
            try:
                found.append(self._call("nvmlDeviceGetMigDeviceHandleByIndex", device, index))
            except NvmlError as error:  # no instance with this number: numbers have gaps
                if error.told:
                    raise
        return found

    @_guarded
    def name(self, device: Handle) -> str:
        """The board's name."""
        return self._text("nvmlDeviceGetName", device)

    @_guarded
    def uuid(self, device: Handle) -> str:
        """The permanent identifier of the device."""
        return self._text("nvmlDeviceGetUUID", device)

    @_guarded
    def memory(self, device: Handle) -> tuple[int, int]:
        """Total and used bytes. The used bytes exclude the driver's reserve."""
        try:
            # Version 1 counts the driver's own 0.6 GiB (H200, driver 580) as used, version 2 not.
            version = getattr(self._nvml, "nvmlMemory_v2", None)
            info = self._call("nvmlDeviceGetMemoryInfo", device, version)
        except NvmlError as error:
            if error.told:
                raise
            info = self._call("nvmlDeviceGetMemoryInfo", device)
        return int(info.total), int(info.used)

    @_guarded
    def unified(self, device: Handle) -> bool:
        """Whether it has no own memory and uses the machine's (GB10, Jetson)."""
        try:
            return self.memory(device)[0] == 0 and bool(_INTEGRATED.search(self.name(device)))
        except NvmlError as error:
            return error.code == NOT_SUPPORTED

    @_guarded
    def utilisation(self, device: Handle) -> float:
        """Share of recent time in which a kernel ran, 0..1. It does not measure saturation."""
        return float(self._call("nvmlDeviceGetUtilizationRates", device).gpu) / 100

    @_guarded
    def power_w(self, device: Handle) -> float:
        """Draw now, watts."""
        return float(self._call("nvmlDeviceGetPowerUsage", device)) / 1000

    @_guarded
    def power_limit_w(self, device: Handle) -> float:
        """Power limit in force, watts."""
        return float(self._call("nvmlDeviceGetEnforcedPowerLimit", device)) / 1000

    @_guarded
    def energy_j(self, device: Handle) -> float:
        """Energy since the driver was loaded, joules."""
        return float(self._call("nvmlDeviceGetTotalEnergyConsumption", device)) / 1000

    @_guarded
    def temperature_c(self, device: Handle) -> float:
        """GPU temperature, degrees Celsius."""
        # CUDA 14 removes the first, driver 560 added the second; sensor 0 is the GPU.
        return float(
            self._first(("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), device, 0)
        )

    @_guarded
    def sm_clock_mhz(self, device: Handle) -> int:
        """Present clock of the multiprocessors, MHz."""
        return int(self._call("nvmlDeviceGetClockInfo", device, 1))  # 1: NVML_CLOCK_SM

    @_guarded
    def clock_reasons(self, device: Handle) -> int:
        """The reasons for the present clocks, as bits of nvmlClocksEventReasons in nvml.h."""
        new, old = (
            f"nvmlDeviceGetCurrentClocks{word}Reasons" for word in ("Event", "Throttle")
        )  # renamed with driver 535
        return int(self._first((new, old), device))

    @_guarded
    def processes(self, device: Handle) -> tuple[GpuProcess, ...]:
        """The processes that hold memory on it, by the host's pids."""
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
        """The first of these functions that this driver and this pynvml both have."""
        refusal = NvmlError("not told", told=False)
        for name in names:
            try:
                return self._call(name, *args)
            except NvmlError as error:
                if error.told:
                    raise
                refusal = error
        raise refusal

    def _text(self, name: str, *args: object) -> str:
        """A text that may not be UTF-8 (WSL has sent such names)."""
        try:
            found = self._call(name, *args)
        except _Undecodable as error:
            found = error.raw
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        return text[:_LONGEST_TEXT]

    def _call(self, name: str, *args: object) -> Any:
        function: Callable[..., Any] | None = getattr(self._nvml, name, None)
        if function is None:
            raise NvmlError(f"this pynvml has no {name}", told=False)
        try:
            return function(*args)
        except self._nvml.NVMLError as error:
            raise _refusal(error) from None
        except UnicodeDecodeError as error:
            raise _Undecodable(bytes(error.object)) from None
        except Exception as error:  # ctypes and pynvml raise many kinds
            raise _unreadable(error) from None


class _Undecodable(NvmlError):
    """A text that is not UTF-8. raw: its bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("a text that is not UTF-8", told=False)
        self.raw = raw


def _refusal(error: Exception) -> NvmlError:
    code = getattr(error, "value", None)
    code = code if isinstance(code, int) else 999
    words = _WORDS.get(code)
    if words is None:
        try:
            words = clean(str(error)[:100])  # calls the library
        except Exception:
            words = f"NVML error {code}"
    return NvmlError(words, told=code not in _NOT_TOLD, gone=code in _GONE, code=code)
