"""Supervision and GPU memory, with real engine processes and a GPU made up around them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.memory_guard import GpuMemory
from llmtop.engines.host.processes import Processes
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.engines.vllm import adapter, failures
from llmtop.values import replace
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.folders import TESTS
from tests.llmtop_process import free_port
from tests.orphaned import orphan

GIB = 2**30
ENGINE = TESTS / "fake_engine.py"
TOO_LITTLE = (
    "ValueError: Free memory on device cuda:0 (8.6/139.8 GiB) on startup is less than desired "
    "GPU memory utilization (0.92, 128.62 GiB). Decrease GPU memory utilization or free memory."
)


def command(spec: LaunchSpec) -> tuple[str, ...]:
    return (sys.executable, str(ENGINE), "--port", str(spec.port), *spec.args)


ADAPTER: Adapter = replace(
    adapter.ADAPTER,
    command=command,
    environment=lambda spec, live, base: {},
    failures=failures.FAILURES,
)


class Bench:
    """A supervisor over one made-up GPU."""

    def __init__(self, folder: Path, back_wait_s: float = 30.0) -> None:
        self.board = FakeGpu(memory=(140 * GIB, 0))
        self.state = StateDirectory(folder / "state", folder / "sockets")
        self.processes = Processes()
        gpus = Gpus(FakeNvml(self.board))
        self.supervisor = Supervisor(
            self.state,
            {"vllm": ADAPTER},
            environ=os.environ,
            processes=self.processes,
            gpu_memory=GpuMemory(
                gpus,
                self.processes,
                host_pids=True,
                back_wait_s=back_wait_s,
                sleep=self._beat,
            ),
        )
        self.beats = 0
        self.returns_at: int | None = None

    def hold(self, pid: int, gib: int) -> None:
        self.board.memory = (140 * GIB, gib * GIB)
        self.board.processes = (GpuProcess(pid, gib * GIB),)

    def spec(self, *args: str, name: str = "a") -> LaunchSpec:
        return LaunchSpec("vllm", name, "m", "127.0.0.1", free_port(), args=args)

    def _beat(self, seconds: float) -> None:
        self.beats += 1
        if self.beats == self.returns_at:
            self.board.processes = ()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for log in tmp_path.glob("state/engines/*/engine.log"):
        for one in made.processes.writers(log):
            made.processes.send(one, signal.SIGKILL)


def test_a_start_that_finds_no_memory_names_who_holds_it(bench: Bench) -> None:
    with orphan() as pid:
        bench.hold(pid, 131)
        spec = bench.spec("--say", TOO_LITTLE, "--die", "1")
        (warning,) = bench.supervisor.crowding(spec)
        assert f"pid {pid} (orphaned VLLM::EngineCore" in warning
        record = bench.supervisor.launch(spec)
        with pytest.raises(LaunchFailed) as caught:
            bench.supervisor.wait_ready(record, 30)
    assert "128.62 GiB of GPU memory are requested" in caught.value.message
    assert f"pid {pid} (orphaned VLLM::EngineCore" in caught.value.hint
    assert f"llmtop doctor --end {pid}" in caught.value.hint


def test_a_start_that_fails_for_another_reason_blames_nobody(bench: Bench) -> None:
    bench.hold(os.getpid(), 131)
    record = bench.supervisor.launch(bench.spec("--die", "3"))
    with pytest.raises(LaunchFailed) as caught:
        bench.supervisor.wait_ready(record, 30)
    assert "GPU" not in caught.value.hint


def test_stop_comes_back_when_the_memory_does(bench: Bench) -> None:
    record = bench.supervisor.launch(bench.spec())
    bench.supervisor.wait_ready(record, 30)
    assert bench.supervisor.members()[record.pid] == "a"
    bench.hold(record.pid, 100)
    bench.returns_at = 3
    notes: list[str] = []
    bench.supervisor.stop(record, grace_s=0, on_note=notes.append)
    assert bench.beats == 3
    assert notes == []


def test_stop_says_so_when_it_does_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, back_wait_s=0.0)
    record = bench.supervisor.launch(bench.spec())
    bench.supervisor.wait_ready(record, 30)
    bench.hold(record.pid, 100)
    notes: list[str] = []
    stopped = bench.supervisor.stop(record, grace_s=0, on_note=notes.append)
    assert stopped.ended_at is not None
    assert len(notes) == 1 and re.search(r"^a: .* 100\.0 GiB of GPU memory", notes[0])


def test_a_simulated_engine_asks_no_gpu(bench: Bench) -> None:
    bench.hold(os.getpid(), 131)
    simulated = Supervisor(
        bench.state,
        {"vllm": replace(ADAPTER, simulated=True)},
        environ=os.environ,
        gpu_memory=GpuMemory(Gpus(FakeNvml(bench.board)), bench.processes, host_pids=True),
    )
    assert simulated.crowding(bench.spec()) == ()
