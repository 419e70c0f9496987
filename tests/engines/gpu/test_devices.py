"""GPU samples: a recorded H200, boards that tell little, drivers missing, lost or stuck."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

import pytest

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.nvml import NvmlError
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.folders import TESTS

DATA = TESTS / "data" / "metrics"
GIB = 2**30


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reading(*gpus: FakeGpu, broken: NvmlError | None = None) -> tuple[Gpus, FakeNvml, Clock]:
    nvml, clock = FakeNvml(*gpus, broken=broken), Clock()
    return Gpus(nvml, clock=lambda: 1.8e9 + clock.now, monotonic=clock), nvml, clock


def recorded() -> Any:
    return json.loads(gzip.decompress((DATA / "vllm_h200.json.gz").read_bytes()))["gpu"]


def test_a_recorded_h200_under_load() -> None:
    board = recorded()
    gpu = FakeGpu(name=board["name"], power_limit_w=board["power_limit_mw"] / 1000)
    gpus, _, clock = reading(gpu)
    throttled = 0
    for row in board["samples"]:
        clock.now = row["t"]
        gpu.memory = (row["memory_v2"]["total"], row["memory_v2"]["used"])
        gpu.utilisation = row["util"]["gpu"] / 100
        gpu.power_w = row["power_mw"] / 1000
        gpu.energy_j = row["energy_mj"] / 1000
        gpu.temperature_c = row["temp_c"]
        gpu.sm_clock_mhz = row["clock_sm"]
        gpu.clock_reasons = row["clocks_event_reasons"]
        gpu.processes = tuple(GpuProcess(p["pid"], p["usedGpuMemory"]) for p in row["procs"])
        (sample,) = gpus.read()
        assert sample.time == pytest.approx(1.8e9 + row["t"])
        assert (sample.index, sample.name, sample.mig_of) == (0, "NVIDIA H200", None)
        assert sample.memory_total_bytes is not None and sample.memory_used_bytes is not None
        assert round(sample.memory_total_bytes / GIB, 1) == 140.4
        assert round(sample.memory_used_bytes / GIB) in (131, 132)
        assert sample.power_w is not None and 100 < sample.power_w < 700 == sample.power_limit_w
        assert sample.throttle == (("power cap",) if row["clocks_event_reasons"] == 4 else ())
        throttled += sample.throttle == ("power cap",)
        ((process),) = sample.processes
        assert process.pid == 629
    assert throttled > 5
    assert gpus.note == ""


def test_a_board_that_tells_little_is_shown_with_what_it_tells() -> None:
    """GB10 and other boards with unified memory answer "not supported" for their memory."""
    gpus, _, _ = reading(FakeGpu(name=None, uuid=None, power_w=11.5, processes=None))
    (sample,) = gpus.read()
    assert sample.power_w == 11.5
    assert sample.memory_total_bytes is None
    assert sample.memory_used_bytes is None
    assert sample.utilisation is None
    assert sample.energy_j is None
    assert sample.throttle is None
    assert (sample.name, sample.uuid, sample.processes) == ("GPU", "index-0", ())
    assert gpus.note == ""


def test_who_looks_every_second_asks_seldom_for_the_energy() -> None:
    clock = Clock()
    board = FakeGpu(power_w=100.0, energy_j=1000.0)
    gpus = Gpus(FakeNvml(board), monotonic=clock, rare_energy=True)
    told = []
    for second in range(11):
        board.energy_j = 1000.0 + 100.0 * second
        (sample,) = gpus.read()
        told.append((sample.energy_j, sample.power_w))
        clock.now += 1.0
    counted = [energy for energy, _ in told]
    assert counted == [1000.0, *[None] * 4, 1500.0, *[None] * 4, 2000.0]
    assert {power for _, power in told} == {100.0}


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x0, ()),
        (0x1, ()),  # idle is no throttling
        (0x4, ("power cap",)),
        (0x4 | 0x20, ("power cap", "thermal (software)")),
        (0x8, ("hardware slowdown",)),
        (0x8 | 0x40, ("thermal (hardware)",)),
        (0x8 | 0x80, ("power brake",)),
        (1 << 40, ()),  # a reason that nobody has thought of yet
    ],
)
def test_throttle_reasons_in_words(bits: int, words: tuple[str, ...]) -> None:
    gpus, _, _ = reading(FakeGpu(clock_reasons=bits))
    assert gpus.read()[0].throttle == words


def test_what_changes_rarely_is_asked_rarely() -> None:
    gpu = FakeGpu(power_limit_w=700, processes=(GpuProcess(1, GIB),), power_w=100)
    gpus, nvml, clock = reading(gpu)
    gpus.read()
    gpu.power_limit_w, gpu.processes, gpu.power_w, gpu.name = 500, (), 200, "another"
    nvml.asked.clear()
    clock.now += 1
    (sample,) = gpus.read()
    assert (sample.power_limit_w, sample.power_w) == (700, 200)
    assert sample.processes == (GpuProcess(1, GIB),)
    assert not {"name", "uuid", "power_limit_w", "processes", "instances"} & set(nvml.asked)
    clock.now += 4
    (sample,) = gpus.read()
    assert (sample.power_limit_w, sample.processes, sample.name) == (500, (), "NVIDIA H200")


def test_mig_instances_follow_their_gpu() -> None:
    part = FakeGpu(
        name="NVIDIA H200 MIG 1g.18gb",
        uuid="MIG-1",
        memory=(18 * GIB, 2 * GIB),
        processes=(GpuProcess(7, 2 * GIB),),
    )
    whole = FakeGpu(uuid="GPU-0", memory=(140 * GIB, 2 * GIB), power_w=90, instances=[part])
    gpus, _, clock = reading(whole, FakeGpu(uuid="GPU-1"))
    first, inside, second = gpus.read()
    assert [first.uuid, inside.uuid, second.uuid] == ["GPU-0", "MIG-1", "GPU-1"]
    assert (inside.index, inside.mig_of, second.index) == (0, "GPU-0", 1)
    assert (inside.memory_total_bytes, inside.power_w) == (18 * GIB, None)
    assert inside.processes == (GpuProcess(7, 2 * GIB),)
    whole.instances = []
    clock.now += 1
    assert len(gpus.read()) == 3
    clock.now += 5
    assert [sample.uuid for sample in gpus.read()] == ["GPU-0", "GPU-1"]


def test_without_a_driver_there_are_no_gpus_and_a_note() -> None:
    missing = NvmlError("no NVIDIA driver found", gone=True)
    gpus, nvml, clock = reading(FakeGpu(), broken=missing)
    for _ in range(20):
        assert gpus.read() == ()
        clock.now += 1
    assert gpus.note == "no NVIDIA driver found"
    assert nvml.asked == ["start"]
    nvml.broken = None  # it was installed meanwhile
    clock.now += 10
    assert len(gpus.read()) == 1
    assert gpus.note == ""


def test_a_driver_that_is_missing_is_looked_for_again_after_a_while() -> None:
    gpus, nvml, clock = reading(FakeGpu(), broken=NvmlError("no driver", gone=True))
    assert not gpus.asleep
    gpus.read()
    assert gpus.asleep
    nvml.broken = None
    clock.now += 31
    assert not gpus.asleep
    assert gpus.read() and not gpus.asleep


def test_a_driver_without_gpus() -> None:
    gpus, _, _ = reading()
    assert gpus.read() == ()
    assert gpus.note == "no GPU found"


def test_a_driver_that_goes_away_and_comes_back() -> None:
    gpus, nvml, clock = reading(FakeGpu(power_w=1))
    assert len(gpus.read()) == 1
    nvml.broken = NvmlError("the NVIDIA driver was updated and is not loaded anew", gone=True)
    assert gpus.read() == ()
    assert "updated" in gpus.note
    assert not nvml.started
    nvml.broken = None
    clock.now += 31
    assert len(gpus.read()) == 1


def test_one_lost_gpu_does_not_take_the_others_along() -> None:
    lost = NvmlError("the GPU is lost (fallen off the bus)")
    gpus, nvml, _ = reading(FakeGpu(uuid="GPU-0", power_w=lost), FakeGpu(uuid="GPU-1", power_w=5))
    first, second = gpus.read()
    assert (first.power_w, second.power_w) == (None, 5)
    assert gpus.note == "GPU 0: the GPU is lost (fallen off the bus)"
    nvml.gpus[0] = lost  # and after a restart it cannot even be opened
    again = Gpus(nvml)
    (only,) = again.read()
    assert (only.index, only.uuid) == (1, "GPU-1")
    assert again.note == "GPU 0: the GPU is lost (fallen off the bus)"


def test_a_driver_that_does_not_come_back_holds_up_one_thread_only() -> None:
    stuck, entered = threading.Event(), threading.Event()

    class Stuck(FakeNvml):
        def instances(self, device: object) -> Any:
            entered.set()
            stuck.wait(60)
            return super().instances(device)

    nvml = Stuck(FakeGpu(power_w=1))
    gpus = Gpus(nvml)
    thread = threading.Thread(target=gpus.read)
    thread.start()
    try:
        assert entered.wait(60)
        assert gpus.read() == ()  # at once: there are no samples from before
        assert thread.is_alive()
    finally:
        stuck.set()
        thread.join(60)
    assert len(gpus.read()) == 1
    gpus.close()
    assert not nvml.started
