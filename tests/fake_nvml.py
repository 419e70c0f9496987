"""A scripted NVML: GPUs whose facts a test changes between reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, field

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.nvml import Handle, NvmlError


class FakeGpu(Struct):
    """A GPU for tests. None: the board does not tell; an NvmlError: raised when asked."""

    name: str | NvmlError | None = "NVIDIA H200"
    uuid: str | NvmlError | None = "GPU-00000000-0000-0000-0000-000000000000"
    memory: tuple[int, int] | NvmlError | None = None
    unified: bool = False
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
        """Release the driver."""
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
