"""Causes found in logs. The lines are as engines, Python and the system write them."""

from __future__ import annotations

import pytest

from llmtop.engines.adapter import FailurePattern
from llmtop.engines.failures import explain


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        (
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 31999): "
            "address already in use",
            "port was taken",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a "
            "total capacity of 79.11 GiB of which 42.69 MiB is free.",
            "GPU's memory ran out",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "driver is older",
        ),
        ("RuntimeError: No CUDA GPUs are available", "no usable NVIDIA GPU"),
        (
            "OSError: You are trying to access a gated repo. Access to model meta-llama/X is "
            "restricted.",
            "gated",
        ),
        (
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
            "'namespace/repo_name': '/models/none'.",
            "found neither as a folder nor by that name",
        ),
        ("vllm: error: unrecognized arguments: --x", "does not know the argument --x"),
        (
            "vllm serve: error: argument --speculative-config/-sc: Value {bad cannot be converted",
            "value of --speculative-config/-sc: Value {bad cannot be converted",
        ),
        ("ModuleNotFoundError: No module named 'vllm'", "lacks the module 'vllm'"),
        ("OSError: [Errno 28] No space left on device", "a disk is full"),
        ("RuntimeError: NCCL error: unhandled system error", "NCCL"),
        ("Subprocess scheduler_0 (pid=9) crashed with exit code -9.", "one of its processes was"),
        ("MemoryError", "main memory ran out"),
        ("OSError: [Errno 24] Too many open files", "file handles"),
        ("vllm: /lib/libc.so.6: version `GLIBC_2.38' not found", "GLIBC_2.38 is missing"),
        ("Fatal Python error: Segmentation fault", "crashed: Segmentation fault"),
    ],
)
def test_a_cause_is_found_by_its_line(line: str, cause: str) -> None:
    found = explain(["starting", line, "leaked 3 objects", "bye"], exit_code=1)
    assert found is not None
    assert cause in found.cause
    assert found.advice
    assert found.excerpt == ("starting", line, "leaked 3 objects", "bye")


def test_a_healthy_end_has_no_cause() -> None:
    healthy = [
        "INFO Shutting down",
        "nanobind: leaked 2 instances!",
        "This can cause fd limit errors like `OSError: [Errno 24] Too many open files`",
        "UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects",
    ]
    assert explain(healthy, exit_code=0) is None


def test_the_engines_own_table_goes_first_wherever_its_line_is() -> None:
    table = (
        FailurePattern("never", "not this", ""),
        FailurePattern(r"wants (?P<need>\d+)", "it needs {need}", "give it {need}"),
    )
    found = explain(["CUDA out of memory", "x", "it wants 42", "y"], table)
    assert found is not None
    assert (found.cause, found.advice) == ("it needs 42", "give it 42")
    assert found.excerpt == ("CUDA out of memory", "x", "it wants 42", "y")


def test_an_unknown_error_is_quoted_from_its_traceback() -> None:
    log = [
        "ValueError: printed, not raised",
        "(EngineCore pid=7) ERROR 01-02 [core.py:9] Traceback (most recent call last):",
        "(EngineCore pid=7) ERROR 01-02 [core.py:9]   File 'x', line 1",
        "(EngineCore pid=7) ERROR 01-02 [core.py:9] pkg.QuotaError: no more pages",
        "bye",
    ]
    found = explain(log, exit_code=1)
    assert found is not None
    assert found.cause == "it failed with QuotaError: no more pages"
    assert found.excerpt[-2:] == tuple(log[-2:])


def test_a_signal_from_outside_is_not_blamed_on_old_lines() -> None:
    old = ["CUDA out of memory", *["serving"] * 200]
    found = explain(old, exit_code=-9)
    assert found is not None and "killed (signal 9)" in found.cause
    # SGLang logs the cause and then kills itself.
    found = explain([*old, "RuntimeError: NCCL error", "killing the tree"], exit_code=-9)
    assert found is not None and "NCCL" in found.cause


def test_a_crash_by_signal_is_named() -> None:
    found = explain(["serving"], exit_code=-11)
    assert found is not None and found.cause == "it crashed (SIGSEGV)"
