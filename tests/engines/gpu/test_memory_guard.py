"""GPU memory around an engine's life: who holds it, in words, and whether it comes back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.memory_guard import GpuMemory, about_memory, chosen_gpus
from llmtop.engines.gpu.nvml import NvmlError
from llmtop.engines.host.processes import Processes
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.orphaned import orphan

GIB = 2**30
TOTAL = int(139.8 * GIB)
ME = os.getpid()
NOBODY = 4_194_303  # the largest pid that Linux gives; never in use on a machine at rest


def gpu(*held: tuple[int, float], used: float | None = None, uuid: str = "GPU-0") -> FakeGpu:
    processes = tuple(GpuProcess(pid, int(size * GIB)) for pid, size in held)
    total = used if used is not None else sum(size for _, size in held)
    return FakeGpu(uuid=uuid, memory=(TOTAL, int(total * GIB)), processes=processes)


class Beats:
    """A clock that goes on when somebody sleeps, and does something at each beat."""

    def __init__(self, each: Callable[[int], None] = lambda beat: None) -> None:
        self.now, self.beat, self.each = 0.0, 0, each

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.beat += 1
        self.each(self.beat)


def memory(
    *gpus: FakeGpu,
    host_pids: bool = True,
    beats: Beats | None = None,
    broken: NvmlError | None = None,
) -> GpuMemory:
    beats = beats or Beats()
    return GpuMemory(
        Gpus(FakeNvml(*gpus, broken=broken)),
        Processes(),
        host_pids=host_pids,
        monotonic=beats.monotonic,
        sleep=beats.sleep,
    )


def crowding(of: GpuMemory, share: float | None = None, **engines: int) -> tuple[str, ...]:
    return of.crowding([0], lambda: {pid: name for name, pid in engines.items()}, share)


def test_an_orphan_is_named_as_such_with_the_way_to_end_it() -> None:
    with orphan() as pid:
        (line,) = crowding(memory(gpu((pid, 130.0), used=131.2)), 0.92)
    assert line.startswith(f"GPU 0: 131.2 GiB of 139.8 GiB are held by pid {pid} (orphaned VLLM::")
    assert "s old): 130.0 GiB" in line
    assert "128.6 GiB are wanted and 8.6 GiB are free" in line
    assert line.endswith(f"free it with: llmtop doctor --end {pid}")


def test_what_an_orphan_started_counts_as_the_orphan() -> None:
    with orphan(with_child=True) as pid:
        processes = Processes()
        (child,) = [e.pid for e in processes.everyone().values() if e.ppid == pid]
        (line,) = crowding(memory(gpu((child, 130.0))))
    assert f"pid {child} (orphaned sleep 120" in line
    assert line.endswith(f"llmtop doctor --end {pid}")


def test_a_living_engine_of_ours_is_named_by_its_name() -> None:
    (line,) = crowding(memory(gpu((ME, 20.0))), llama=ME)
    assert f"by the engine 'llama' (pid {ME}, " in line
    assert line.endswith("free it with: llmtop stop llama")
    assert "wanted" not in line


def test_inside_a_container_nobody_is_named_by_a_pid_of_the_host() -> None:
    (line,) = crowding(memory(gpu((ME, 20.0)), host_pids=False))
    assert f"a process that is not shown here (pid {ME} outside): 20.0 GiB" in line
    assert "free it with" not in line
    (line,) = crowding(memory(gpu((NOBODY, 20.0))))
    assert "not shown here" in line


def test_free_gpus_and_machines_without_any_need_no_words() -> None:
    assert crowding(memory(gpu((ME, 0.4)))) == ()
    assert crowding(memory()) == ()
    assert crowding(memory(broken=NvmlError("no NVIDIA driver found", gone=True))) == ()
    busy = gpu((ME, 100.0), uuid="GPU-1")
    assert crowding(memory(gpu(), busy)) == ()  # the launch takes GPU 0


def test_a_driver_that_hangs_is_given_up_on() -> None:
    answer = threading.Event()

    class Stuck(FakeNvml):
        def devices(self) -> tuple[FakeGpu, ...]:
            answer.wait(60)
            return ()

    watcher = GpuMemory(Gpus(Stuck()), Processes(), host_pids=True, patience_s=0.05)
    assert crowding(watcher) == ()
    assert watcher.note == "the NVIDIA driver does not answer"
    answer.set()


def test_memory_whose_holder_nvml_does_not_tell() -> None:
    assert crowding(memory(gpu(used=50.0))) == ("GPU 0: 50.0 GiB of 139.8 GiB are held",)


def test_many_holders_are_counted() -> None:
    (line,) = crowding(memory(gpu(*((NOBODY - n, 10.0 + n) for n in range(5)))))
    assert line.count("not shown here") == 3
    assert line.endswith("2 more")


def test_a_stop_waits_until_the_memory_is_back() -> None:
    board = gpu((ME, 100.0), (NOBODY, 1.0))

    def ends(beat: int) -> None:
        if beat == 3:
            board.processes = (GpuProcess(NOBODY, GIB),)
            board.memory = (TOTAL, GIB)

    beats = Beats(ends)
    watcher = memory(board, beats=beats)
    held = watcher.before_stop([ME])
    assert held is not None
    assert watcher.wait_back(held) == ""
    assert beats.beat == 3


def test_a_stop_says_how_much_stays_away() -> None:
    beats = Beats()
    watcher = memory(gpu((ME, 100.0)), gpu((ME, 20.0), uuid="GPU-1"), beats=beats)
    held = watcher.before_stop([ME])
    assert held is not None
    still = watcher.wait_back(held)
    assert "120.0 GiB" in still and "10 s after" in still
    assert beats.now == pytest.approx(10.0, abs=0.3)


def test_an_engine_without_gpu_memory_is_not_waited_for() -> None:
    assert memory(gpu((NOBODY, 100.0))).before_stop([ME]) is None
    assert memory().before_stop([ME]) is None
    # In a container only a process that has a GPU open can be an engine on one.
    assert memory(gpu((ME, 100.0)), host_pids=False).before_stop([ME]) is None


@pytest.mark.parametrize(("falls", "words"), [(True, ""), (False, "no less than before")])
def test_inside_a_container_it_waits_until_the_memory_falls_no_more(
    falls: bool, words: str
) -> None:
    board = gpu((NOBODY, 100.0))

    def ends(beat: int) -> None:
        if falls and beat <= 4:
            board.memory = (TOTAL, (100 - 20 * beat) * GIB)

    beats = Beats(ends)
    watcher = GpuMemory(
        Gpus(FakeNvml(board)),
        Processes(),
        host_pids=False,
        openers=lambda pids: pids,
        monotonic=beats.monotonic,
        sleep=beats.sleep,
    )
    held = watcher.before_stop([ME])
    assert held is not None
    assert words in watcher.wait_back(held)
    assert beats.beat == 6 if falls else beats.now >= 10


def test_a_gpu_that_vanishes_ends_the_wait() -> None:
    board = gpu((ME, 100.0))
    nvml = FakeNvml(board)
    watcher = GpuMemory(Gpus(nvml), Processes(), host_pids=True)
    held = watcher.before_stop([ME])
    assert held is not None
    nvml.broken = NvmlError("the GPU is lost", gone=True)
    assert watcher.wait_back(held) == ""


@pytest.mark.parametrize(
    ("gpus", "parts", "listed", "expected"),
    [
        ((2, 3), None, "", (2, 3)),
        ((), None, "", (0,)),
        ((), 2, "", (0, 1)),
        ((), 2, "4,5,6", (4, 5)),
        ((), 1, "GPU-8f6a", ()),
    ],
)
def test_the_gpus_that_a_launch_takes(
    gpus: tuple[int, ...], parts: int | None, listed: str, expected: tuple[int, ...]
) -> None:
    spec = LaunchSpec("vllm", "a", "m", "127.0.0.1", 8000, gpus=gpus)
    assert chosen_gpus(spec, parts, {"CUDA_VISIBLE_DEVICES": listed}) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "ValueError: Free memory on device (8.6/139.8 GiB) on startup is less than desired "
            "GPU memory utilization (0.92, 128.62 GiB).",
            True,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", True),
        ("ValueError: No available memory for the cache blocks.", True),
        ("OSError: [Errno 98] Address already in use", False),
    ],
)
def test_failures_about_memory(line: str, expected: bool) -> None:
    assert about_memory([line]) is expected


def on_unified(used: float, total: float, *held: tuple[int, float], share: float | None) -> str:
    """What a start on a GB10 of so many GiB would be told."""
    fake = FakeGpu(
        name="NVIDIA GB10",
        unified=True,
        processes=tuple(GpuProcess(pid, int(size * GIB)) for pid, size in held),
    )
    gpus = Gpus(FakeNvml(fake), machine=lambda: (int(total * GIB), int(used * GIB)))
    return "\n".join(crowding(GpuMemory(gpus, Processes(), host_pids=True), share))


def test_before_a_start_unified_memory_is_the_machines() -> None:
    text = on_unified(30, 120, share=0.9)
    assert text.startswith("GPU 0 has unified memory: 30.0 GiB of 120.0 GiB of the machine are in")
    assert "108.0 GiB are wanted and 90.0 GiB are free" in text
    # What the machine itself takes is no news while there is room.
    assert on_unified(30, 120, share=0.5) == ""
    assert on_unified(30, 120, share=None) == ""
    assert "70.0 GiB of 120.0 GiB" in on_unified(70, 120, share=None)
    held = on_unified(45, 120, (ME, 40), share=0.5)
    assert "on the GPU by pid" in held and "40.0 GiB" in held and "wanted" not in held


def test_a_gpu_that_hides_its_memory_shows_what_its_processes_hold() -> None:
    fake = FakeGpu(memory=None, processes=(GpuProcess(ME, 40 * GIB),))
    (line,) = crowding(memory(fake), 0.9)
    assert line.startswith(f"GPU 0: 40.0 GiB are held by pid {ME}")
    assert crowding(memory(FakeGpu(memory=None)), 0.9) == ()


def test_after_a_stop_the_machines_memory_is_not_waited_for() -> None:
    gpus = Gpus(FakeNvml(FakeGpu(unified=True)), machine=lambda: (120 * GIB, 60 * GIB))
    inside = GpuMemory(gpus, Processes(), host_pids=False, openers=lambda pids: pids)
    assert inside.before_stop([ME]) is None
