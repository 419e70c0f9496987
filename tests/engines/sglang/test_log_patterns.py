"""What SGLang's log tells, on logs that it wrote."""

from __future__ import annotations

import gzip

import pytest

from llmtop.engines.logs.startup import StartupLog
from llmtop.engines.sglang.adapter import ADAPTER
from tests.failure_logs import told
from tests.folders import TESTS

DATA = TESTS / "data" / "sglang"


def recorded(name: str) -> str:
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


def phases_in(log: str) -> list[str]:
    start = StartupLog(ADAPTER.phases)
    words: list[str] = []
    for line in log.splitlines():
        start.feed([line], 0.0)
        if start.phase and (not words or start.phase != words[-1]):
            words.append(start.phase)
    return words


def test_the_phases_of_a_start_on_a_gpu() -> None:
    found = phases_in(recorded("start_0.5.16.log"))
    assert found[:4] == ["configuring", "scheduler process", "weights", "KV cache"]
    assert [word for word in found if word.startswith("CUDA graphs")][:3] == [
        *("CUDA graphs", "CUDA graphs 3/58", "CUDA graphs 7/58")
    ]
    assert found[-2:] == ["API server", "warm-up"]


def test_the_phases_of_a_start_on_a_cpu() -> None:
    assert phases_in(recorded("start_0.5.21.log")) == [
        *("configuring", "scheduler process", "weights", "shards 0/1", "shards 1/1"),
        *("KV cache", "API server", "warm-up"),
    ]


@pytest.mark.parametrize("name", ["start_0.5.16.log", "start_0.5.21.log"])
def test_a_start_that_went_well_has_no_failure_in_it(name: str) -> None:
    found = told("sglang", recorded(name).splitlines(), None)
    assert found is None or found.cause.startswith("ended by SIG")


@pytest.mark.parametrize(
    "name, cause",
    [
        ("bad_model", "no model at /srv/llm"),
        ("port_in_use", "its port was taken by another process: 30000"),
        ("context", "--context-length 65536 is more than this model's limit of 2048 tokens"),
        ("page", "--chunked-prefill-size is not a multiple of --page-size"),
        ("memory", "the weights left no memory for the KV cache (--mem-fraction-static 1e-05)"),
        ("bad_algorithm", "SGLang does not know the speculative algorithm WRONG"),
        ("backend", "EAGLE is not supported in decode attention backend torch_native"),
        ("killed", "its process scheduler_0 was killed (SIGKILL)"),
    ],
)
def test_recorded_failures(name: str, cause: str) -> None:
    found = told("sglang", recorded(f"fail_{name}.log").splitlines())
    assert found is not None
    assert found.cause.startswith(cause)
    assert found.advice


@pytest.mark.parametrize(
    "line, cause",
    [
        (
            "sglang serve: error: unrecognized arguments: --no-such-flag",
            "SGLang does not know the argument --no-such-flag",
        ),
        (
            "sglang serve: error: argument --max-queued-requests: invalid int value: 'lots'",
            "SGLang refused the argument --max-queued-requests: invalid int value: 'lots'",
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
            "Current value: mem_fraction_static=0.3",
            "the weights left no memory for the KV cache (--mem-fraction-static 0.3)",
        ),
        (
            "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other "
            "processes. pre_model_load_memory=79.1, local_gpu_memory=40.2",
            "another process holds memory on one of the GPUs",
        ),
        (
            "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2 GiB",
            "the CUDA graphs could not be captured: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (
            "RuntimeError: Decode out of memory. Try to lower your batch size.",
            "the KV cache had no room left (Decode)",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "out of GPU memory",
        ),
        (
            "RuntimeError: CUDA error: invalid device ordinal",
            "it asks for a GPU that does not exist: fewer GPUs are visible than it needs",
        ),
        (
            "ValueError: Model architectures ['NewForCausalLM'] are not supported for now.",
            "this SGLang does not support the architecture ['NewForCausalLM']",
        ),
        (
            "Subprocess scheduler_0 (pid=4711) crashed with exit code -11. Triggering SIGQUIT",
            "its process scheduler_0 was ended by signal 11",
        ),
    ],
)
def test_documented_failures(line: str, cause: str) -> None:
    found = told("sglang", [line])
    assert found is not None
    assert found.cause == cause
    assert found.advice
