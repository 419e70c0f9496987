"""The interface to NVIDIA's management library: one method for each fact, plain values, one error.

NVML calls block. They can be slow, and may never return when a GPU has fallen off the bus, so they
run in a thread. The real library is in ``nvml_library``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llmtop.engines.core.samples import GpuProcess

Handle = object  # the library's device handle, opaque to callers

# Of nvmlReturn_t in nvml.h.
NOT_SUPPORTED = 3
MISMATCH = 18

NO_PERMISSION = "no permission"  # the error's text in that case


class NvmlError(Exception):
    """A failed call. words: the reason. told: False when this board does not have the fact.

    gone: the library or driver cannot be used at all (any more). code: NVML's error number.
    """

    def __init__(
        self, words: str, told: bool = True, gone: bool = False, code: int | None = None
    ) -> None:
        super().__init__(words)
        self.words = words
        self.told = told
        self.gone = gone
        self.code = code


class Nvml(Protocol):
    """The calls of the library. Every method raises only NvmlError."""

    def start(self) -> None:
        """Load and initialise."""

    def stop(self) -> None:
        """Release the driver."""

    def driver_version(self) -> str:
        """The driver's version, as in ``580.95.05``."""

    def cuda_version(self) -> str:
        """The newest CUDA that this driver runs, as in ``13.0``."""

    def devices(self) -> Sequence[Handle | NvmlError]:
        """All GPUs in the driver's order; an error in place of a GPU that cannot be opened."""

    def instances(self, device: Handle) -> Sequence[Handle]:
        """The MIG instances of a GPU, () without MIG."""

    def name(self, device: Handle) -> str:
        """The board's name."""

    def uuid(self, device: Handle) -> str:
        """The permanent identifier of the device."""

    def memory(self, device: Handle) -> tuple[int, int]:
        """Total and used bytes. The used bytes exclude the driver's reserve."""

    def unified(self, device: Handle) -> bool:
        """Whether it has no own memory and uses the machine's (GB10, Jetson)."""

    def utilisation(self, device: Handle) -> float:
        """Share of recent time in which a kernel ran, 0..1. It does not measure saturation."""

    def power_w(self, device: Handle) -> float:
        """Present power draw, watts."""

    def power_limit_w(self, device: Handle) -> float:
        """Power limit in force, watts."""

    def energy_j(self, device: Handle) -> float:
        """Energy since the driver was loaded, joules."""

    def temperature_c(self, device: Handle) -> float:
        """GPU temperature, degrees Celsius."""

    def sm_clock_mhz(self, device: Handle) -> int:
        """Present clock of the multiprocessors, MHz."""

    def clock_reasons(self, device: Handle) -> int:
        """The reasons for the present clocks, as bits of nvmlClocksEventReasons in nvml.h."""

    def processes(self, device: Handle) -> tuple[GpuProcess, ...]:
        """The processes that hold memory on it, by the host's pids."""
