"""NVIDIA's management library as a seam: one method a fact, plain values, one kind of error.

NVML calls block, can be slow, and may never return when a GPU has fallen off the bus: they belong
in a thread. The real library is in ``nvml_library``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llmtop.engines.core.samples import GpuProcess

Handle = object  # a device as the library gives it; means nothing to anybody else

# Of nvmlReturn_t in nvml.h.
NOT_SUPPORTED = 3
MISMATCH = 18

NO_PERMISSION = "no permission"  # what an error's words are then


class NvmlError(Exception):
    """A call that brought nothing. words: why. told: False when this board just has no such fact.

    gone: the library or driver as a whole cannot be used (any more). code: NVML's own number.
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

    def unified(self, device: Handle) -> bool:
        """Whether it has no memory of its own and works in the machine's (GB10, Jetson)."""

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
