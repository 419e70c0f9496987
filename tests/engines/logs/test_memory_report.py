"""An engine's GPU memory, part by part: from its own log, and beside what NVML measures."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.logs.memory_report import (
    READ_CHARS,
    MemoryReport,
    divide,
    find_memory_report,
    read_memory_report,
)
from llmtop.engines.logs.startup import write_start_line
from llmtop.engines.registry import ADAPTERS
from llmtop.engines.simulated.simulator.arguments import parse
from llmtop.engines.simulated.simulator.startup import start
from llmtop.engines.vllm.log_patterns import MEMORY
from tests.folders import TESTS

DATA = TESTS / "data" / "vllm"
GIB = 2**30
STARTED = 1_795_327_400.0


def recorded() -> list[str]:
    return gzip.decompress((DATA / "start_h200_0.26.log.gz").read_bytes()).decode().splitlines()


def gib(*values: float | None) -> list[float | None]:
    return [None if value is None else round(value / GIB, 2) for value in values]


def parts(found: MemoryReport | None) -> list[float | None]:
    assert found is not None
    return gib(found.weights, found.kv, found.graphs, found.activations, found.runtime, found.total)


def test_a_recorded_start_on_an_h200() -> None:
    assert parts(find_memory_report(recorded(), MEMORY)) == [15.0, 112.28, 0.98, 1.1, 0.22, 139.8]


def test_the_summary_of_a_newer_vllm() -> None:
    lines = [
        "(Worker_TP0 pid=7) INFO [x.py:1] Model loading took 15.0 GiB memory and 0.4 seconds",
        "(Worker_TP1 pid=8) INFO [x.py:1] Model loading took 15.5 GiB memory and 0.4 seconds",
        "(Worker pid=7) INFO Initial free memory 139.29 GiB, reserved 60.0 GiB memory for KV Cache "
        "as specified by kv_cache_memory_bytes config and skipped memory profiling.",
        "(Worker pid=7) INFO Free memory on device cuda:0 (139.29/139.8 GiB) on startup. Desired "
        "GPU memory utilization is (0.92, 128.62 GiB). Actual usage is 15.22 GiB for consumed "
        "memory (weights + non-torch), 1.1 GiB for peak activation, and 0.98 GiB for CUDAGraph.",
    ]
    assert parts(find_memory_report(lines, MEMORY)) == [15.0, 60.0, None, 1.1, 0.22, 139.8]


def test_sglang_tells_keys_and_values_apart() -> None:
    lines = [
        "[2026-11-22 06:00:01] Load weight end. elapsed=1.5 s, type=LlamaForCausalLM, "
        "avail mem=123.9 GB, mem usage=14.99 GB.",
        "[2026-11-22 06:00:02] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 880000, "
        "K size: 53.7 GB, V size: 53.7 GB",
        "[2026-11-22 06:00:09] Capture decode CUDA graph end. elapsed=5.1 s, mem usage=0.7 GB, "
        "avail mem=15.0 GB.",
        "[2026-11-22 06:00:09] Capture target prefill CUDA graph end. elapsed=36.75 s, "
        "mem usage=1.47 GB, avail mem=11.72 GB.",
    ]
    told = parts(find_memory_report(lines, ADAPTERS["sglang"].memory))
    assert told == [14.99, 107.4, 2.17, None, None, None]
    path = DATA.parent / "sglang" / "start_0.5.16.log.gz"
    recorded = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert parts(find_memory_report(recorded, ADAPTERS["sglang"].memory))[:3] == [
        15.02,
        110.6,
        1.71,
    ]


def test_tensorrt_llms_report_counts_the_whole_cache_and_not_the_one_it_measures_with() -> None:
    # After the words of its PyTorch backend and of its KV-cache manager.
    lines = [
        "[TRT-LLM] [I] Use 15.01 GB for model weights.",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache "
        "(8224).",
        "[TRT-LLM] [I] Memory used after loading model weights (inside torch) in memory usage "
        "profiling: 15.90 GiB",
        "[TRT-LLM] [I] Memory used after loading model weights (outside torch) in memory usage "
        "profiling: 1.75 GiB",
        "[TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) in memory "
        "usage profiling: 2.25 GiB",
        "[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 19.90 GiB, "
        "available KV cache memory when calculating max tokens: 108.10 GiB, fraction is set 0.9, "
        "kv size is 131072. device total memory 139.80 GiB, , tmp kv_mem 0.56 GiB",
        "[TRT-LLM] [I] Estimated max memory in KV cache : 108.10 GiB",
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 108.10 GiB for max tokens in paged KV "
        "cache (885552).",
    ]
    told = parts(find_memory_report(lines, ADAPTERS["tensorrt-llm"].memory))
    assert told == [15.01, 108.1, None, 2.25, 1.75, 139.8]


def test_a_start_that_tells_nothing_or_nonsense() -> None:
    assert find_memory_report(["Loading 3 GiB of something"], MEMORY) is None
    assert find_memory_report(["Available KV cache memory: -0.73 GiB"], MEMORY) is None
    assert find_memory_report(["Model loading took 1.2.3 GiB", "x" * 10**6 + "GiB"], MEMORY) is None
    assert find_memory_report(["Model loading took 999999999999 GiB"], MEMORY) is None


def test_what_users_write_later_changes_nothing() -> None:
    lines = [*recorded(), "prompt: 'Model loading took 1.0 GiB'"]
    assert parts(find_memory_report(lines, MEMORY))[0] == 15.0


async def test_the_simulated_engine_tells_the_same_facts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await start(parse(["--startup-s", "0"]))
    lines = capsys.readouterr().out.splitlines()
    found = find_memory_report(lines, ADAPTERS["sim"].memory, simulated=True)
    weights, kv, graphs, activations, runtime, total = parts(found)
    assert (graphs, activations, total) == (0.98, 1.1, 139.8)
    assert weights == pytest.approx(15.0, abs=0.1)
    assert kv == pytest.approx(112.3, abs=0.2)
    assert found is not None and found.simulated
    division = divide(found, kv_usage=0.5)
    assert division.free == pytest.approx(139.8 * GIB * 0.08 - 0.98 * GIB, abs=0.1 * GIB)
    assert runtime == pytest.approx(0.24, abs=0.02)


def log(folder: Path, *before: str) -> Path:
    path = folder / "engine.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in before:
        os.write(fd, line.encode() + b"\n")
    write_start_line(fd, STARTED, ["vllm", "serve"])
    os.close(fd)
    return path


def test_only_this_start_counts_and_it_is_found_by_another_llmtop(tmp_path: Path) -> None:
    path = log(tmp_path, "Model loading took 70.0 GiB and 9 seconds")
    with path.open("a") as file:
        file.write("\n".join(recorded()) + "\n")
    assert parts(read_memory_report(path, STARTED, MEMORY))[0] == 15.0
    assert read_memory_report(path, STARTED + 1, MEMORY) is None
    assert read_memory_report(tmp_path / "none.log", STARTED, MEMORY) is None
    # The log was rotated since.
    path.rename(tmp_path / "engine.log.1")
    path.write_text("POST /v1/completions 200\n")
    assert parts(read_memory_report(path, STARTED, MEMORY))[0] == 15.0


def test_a_long_log_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = log(tmp_path)
    with path.open("a") as file:
        file.write("Model loading took 15.0 GiB and 1 seconds\n")
        line = "x" * 3000 + "\n"
        file.write(line * (READ_CHARS // len(line) + 2))
        file.write("Available KV cache memory: 112.28 GiB\n")
    assert parts(read_memory_report(path, STARTED, MEMORY))[:2] == [15.0, None]


ENGINE = MemoryReport(15.0 * GIB, 112.3 * GIB, 1.0 * GIB, 1.1 * GIB, 0.2 * GIB, pids=(10, 11))


def test_the_parts_beside_what_nvml_measures() -> None:
    laid = divide(ENGINE, used=131.2 * GIB, total=139.8 * GIB, kv_usage=0.66)
    assert gib(laid.weights, laid.kv, laid.kv_used) == [15.0, 112.3, 74.12]
    assert gib(laid.graphs, laid.activations, laid.rest) == [1.0, 1.1, 1.8]
    assert gib(laid.others, laid.free) == [0.0, 8.6]
    sizes = (laid.weights, laid.kv, laid.graphs, laid.activations, laid.rest, laid.free or 0)
    assert sum(sizes) == pytest.approx(139.8 * GIB)


def test_other_processes_are_told_apart_when_pids_can_be() -> None:
    processes = (GpuProcess(10, 130 * GIB), GpuProcess(99, 5 * GIB))
    laid = divide(ENGINE, used=135.4 * GIB, total=139.8 * GIB, processes=processes)
    assert gib(laid.others, laid.rest) == [5.0, 1.0]
    strangers = (GpuProcess(99, 135 * GIB),)
    assert divide(ENGINE, used=135 * GIB, processes=strangers).others == 0
    assert not ENGINE.is_on(strangers)
    assert ENGINE.is_on(processes) and ENGINE.is_on(())


def test_a_peak_that_is_not_held_now_is_not_drawn_over_free_memory() -> None:
    laid = divide(ENGINE, used=128.5 * GIB, total=139.8 * GIB)
    assert gib(laid.activations, laid.rest, laid.free) == [0.2, 0.0, 11.3]
    assert laid.kv_used is None
