"""The GPUs of this machine: one sample each of memory, power, temperature and processes.

Constant facts are read once, slowly changing ones every five seconds. Each fact is independent: a
board that does not report its energy still reports its memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from llmtop.engines.core.samples import GpuProcess, GpuSample
from llmtop.engines.gpu import plausibility as plausible
from llmtop.engines.gpu.nvml import MISMATCH, Handle, Nvml, NvmlError
from llmtop.engines.gpu.nvml_library import PyNvml
from llmtop.engines.gpu.unified_memory import machine_memory

SLOW_S = 5.0  # power limit, processes, MIG instances
_RETRY_S = 30.0  # a driver that is missing now may be loaded later

_T = TypeVar("_T")

# Bits of nvmlClocksEventReasons in nvml.h. Idle (0x1) also reduces the clocks, but it is not
# throttling. 0x8 only combines 0x40 and 0x80 where the board distinguishes them.
_SLOWDOWN = 0x8
_REASONS = {
    0x2: "application clocks",
    0x4: "power cap",
    _SLOWDOWN: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}


class _Device(Struct):
    """One GPU or MIG instance and its cached facts."""

    handle: Handle
    index: int
    name: str
    uuid: str
    mig_of: str | None = None
    unified: bool = False
    power_limit_w: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    slow_at: float | None = None


class Gpus:
    """Reads all GPUs; never raises. It blocks as long as the driver does, so call it in a thread.

    note: why there are no numbers, or the problem of a GPU; "" without a problem.
    mismatch: the driver and its library have different versions, so nothing can be read.
    machine: total and used bytes of the machine's memory, for GPUs without their own memory.
    rare_energy: read the energy only every ``SLOW_S`` seconds, None in between. Measured on an
    H200: the energy takes 4 ms of CPU, the rest of a sample 0.1 ms.
    """

    def __init__(
        self,
        nvml: Nvml | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        rare_energy: bool = False,
        machine: Callable[[], tuple[int, int] | None] = machine_memory,
    ) -> None:
        self.note = ""
        self.mismatch = False
        self._machine = machine
        self._rare_energy = rare_energy
        self._nvml = nvml if nvml is not None else PyNvml()
        self._clock = clock
        self._monotonic = monotonic
        self._devices: list[_Device] | None = None
        self._instances: dict[str, list[_Device]] = {}
        self._absent = ""  # note on GPUs that exist but cannot be opened
        self._started = False
        self._tried_at: float | None = None
        self._last: tuple[GpuSample, ...] = ()
        self._versions: tuple[str | None, str | None] = (None, None)
        self._lock = threading.Lock()

    def read(self, *, fresh: bool = False) -> tuple[GpuSample, ...]:
        """A sample of each GPU, followed by those of its MIG instances. () without GPUs.

        fresh: also read slowly changing facts, such as which processes hold the memory. While the
        driver blocks another thread's read, the earlier samples are returned, with their times.
        """
        if not self._lock.acquire(blocking=False):
            return self._last
        try:
            self._last = self._read(fresh)
        except NvmlError as error:
            self._forget(error.words)
            self.mismatch = error.code == MISMATCH
        finally:
            self._lock.release()
        return self._last

    @property
    def asleep(self) -> bool:
        """Whether a recent read found no driver, so a read now would return at once."""
        tried = self._tried_at
        return self._devices is None and (
            tried is not None and self._monotonic() - tried < _RETRY_S
        )

    def versions(self) -> tuple[str | None, str | None]:
        """The driver's version and the newest CUDA that it runs; None where it does not report it.

        Known once ``read`` has found a driver.
        """
        return self._versions  # without the lock: a read may block in the driver for ever

    def close(self) -> None:
        """Release the driver, unless a read blocks in it."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._forget("closed")
            finally:
                self._lock.release()

    def _read(self, fresh: bool) -> tuple[GpuSample, ...]:
        now = self._monotonic()
        if self._devices is None:
            if self._tried_at is not None and now - self._tried_at < _RETRY_S:
                return ()
            self._tried_at = now
            self._devices = self._open()
        self.note = self._absent or ("" if self._devices else "no GPU found")
        samples = []
        for device in self._devices:
            slow = fresh or device.slow_at is None or now - device.slow_at >= SLOW_S
            samples.append(self._sample(device, slow))
            if slow:
                device.slow_at = now
                self._instances[device.uuid] = self._divide(device)
            samples += [self._sample(part, slow) for part in self._instances[device.uuid]]
        return tuple(samples)

    def _open(self) -> list[_Device]:
        self._nvml.start()
        self._started = True
        self._absent, self.mismatch = "", False
        self._versions = (
            _version_or_none(self._nvml.driver_version),
            _version_or_none(self._nvml.cuda_version),
        )
        devices: list[_Device] = []
        for index, handle in enumerate(self._nvml.devices()):
            if isinstance(handle, NvmlError):
                self._absent = f"GPU {index}: {handle.words}"
                continue
            device = self._device(handle, index)
            if device.uuid in {other.uuid for other in devices}:
                device.uuid = f"index-{index}"
            devices.append(device)
        return devices

    def _device(self, handle: Handle, index: int, mig_of: str | None = None) -> _Device:
        name = self._ask(self._nvml.name, handle, index) or "GPU"
        # The uuid is the key of charts and tables, so a board that hides it gets a substitute.
        uuid = self._ask(self._nvml.uuid, handle, index) or f"index-{index}"
        # An instance is a part of a GPU that has memory.
        unified = mig_of is None and bool(self._ask(self._nvml.unified, handle, index))
        return _Device(handle, index, name, uuid, mig_of, unified)

    def _divide(self, device: _Device) -> list[_Device]:
        handles = self._ask(self._nvml.instances, device.handle, device.index) or ()
        return [self._device(handle, device.index, device.uuid) for handle in handles]

    def _sample(self, device: _Device, slow: bool) -> GpuSample:
        nvml, handle, index = self._nvml, device.handle, device.index
        asked = self._machine() if device.unified else self._ask(nvml.memory, handle, index)
        total, used = plausible.memory(asked)
        if slow:
            device.power_limit_w = plausible.limit_w(self._ask(nvml.power_limit_w, handle, index))
            held = self._ask(nvml.processes, handle, index)
            # On unified memory a process may hold more than there is: the rest is swapped out.
            device.processes = plausible.processes(held, None if device.unified else total)
        reasons = plausible.reasons(self._ask(nvml.clock_reasons, handle, index))
        energy = slow or not self._rare_energy
        return GpuSample(
            time=self._clock(),
            index=index,
            name=device.name,
            uuid=device.uuid,
            mig_of=device.mig_of,
            memory_total_bytes=total,
            memory_used_bytes=used,
            utilisation=plausible.share(self._ask(nvml.utilisation, handle, index)),
            power_w=plausible.watts(self._ask(nvml.power_w, handle, index)),
            power_limit_w=device.power_limit_w,
            energy_j=plausible.joules(self._ask(nvml.energy_j, handle, index)) if energy else None,
            temperature_c=plausible.celsius(self._ask(nvml.temperature_c, handle, index)),
            sm_clock_mhz=plausible.megahertz(self._ask(nvml.sm_clock_mhz, handle, index)),
            throttle=_words(reasons) if reasons is not None else None,
            processes=device.processes,
            unified=device.unified,
        )

    def _ask(self, question: Callable[[Handle], _T], handle: Handle, index: int) -> _T | None:
        """One fact; None when it is not available. Only a lost driver ends the whole read."""
        try:
            return question(handle)
        except NvmlError as error:
            if error.gone:
                raise
            if error.told:
                self.note = f"GPU {index}: {error.words}"
            return None

    def _forget(self, note: str) -> None:
        self._devices, self._last, self.note = None, (), note
        self._instances.clear()
        if self._started:
            self._started = False
            try:
                self._nvml.stop()
            except NvmlError:
                return  # the driver is gone already


def _version_or_none(question: Callable[[], str]) -> str | None:
    try:
        return question()
    except NvmlError:
        return None


def _words(reasons: int) -> tuple[str, ...]:
    if reasons & (0x40 | 0x80):
        reasons &= ~_SLOWDOWN
    return tuple(word for bit, word in _REASONS.items() if reasons & bit)
