"""What the vLLM adapter makes of logs that real engines wrote."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from llmtop.engines.adapter import FailurePattern
from llmtop.engines.vllm import ADAPTER

DATA = Path(__file__).resolve().parent / "data" / "vllm"


def recorded(name: str) -> str:
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


def phases_in(log: str) -> list[str]:
    words: list[str] = []
    for line in log.splitlines():
        found = [phase.word for phase in ADAPTER.phases if phase.begins.search(line)]
        assert len(found) <= 1, line
        if found and found[0] not in words:
            words.append(found[0])
    return words


class TestLog:
    def test_the_phases_of_a_start_on_a_gpu(self) -> None:
        assert phases_in(recorded("start_h200_0.26.log")) == [
            phase.word for phase in ADAPTER.phases
        ]

    def test_the_phases_of_a_start_on_cpu(self) -> None:
        assert phases_in(recorded("start_cpu_0.32.log")) == [
            *("configuring", "engine process", "weights", "compile", "KV cache", "API server")
        ]

    @pytest.mark.parametrize("name", ["start_h200_0.26.log", "start_cpu_0.32.log"])
    def test_a_start_and_stop_that_went_well_has_no_failure_in_it(self, name: str) -> None:
        assert explain(recorded(name)) is None

    @pytest.mark.parametrize(
        "name, cause",
        [
            ("bad_flag", "vLLM does not know the argument --max-num-seq-typo 4"),
            ("bad_model", "there is no model at /srv/llm/nope"),
            ("bad_spec_json", "--speculative-config is not valid JSON"),
            ("bad_spec_method", "the speculative decoding configuration was refused"),
            ("kv_too_big", "the KV cache is to take 100.0 GiB and 12.68 GiB are free"),
            ("kv_too_small", "the KV cache cannot hold even one request of 2048 tokens"),
            (
                "maxlen_gt_model",
                "--max-model-len 99999 is more than the 4096 tokens that this model was made for",
            ),
            ("mnbt_lt_seqs", "--max-num-batched-tokens 2048 is less than --max-num-seqs 4096"),
            ("no_cache_blocks", "the weights left no memory for the KV cache"),
            ("port_in_use", "the port is already in use"),
            ("sched_cls_missing", "the Python module no_such_mod is missing"),
        ],
    )
    def test_recorded_failures(self, name: str, cause: str) -> None:
        found = explain(recorded(f"fail_{name}.log"))
        assert found is not None
        assert found[0] == cause
        assert found[1]

    @pytest.mark.parametrize(
        "line, cause",
        [
            (
                "ValueError: Free memory on device cuda:0 (10.12/79.11 GiB) on startup is less "
                "than desired GPU memory utilization (0.92, 72.78 GiB). Decrease GPU memory "
                "utilization or reduce GPU memory used by other processes.",
                "72.78 GiB of memory are wanted and 10.12 of 79.11 GiB are free",
            ),
            (
                "ValueError: Free memory on device (10.12/79.11 GiB) on startup is less than "
                "desired GPU memory utilization (0.9, 71.2 GiB).",
                "71.2 GiB of memory are wanted and 10.12 of 79.11 GiB are free",
            ),
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
                "out of GPU memory",
            ),
            (
                "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
                "requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization`",
                "out of GPU memory while warming up with 1024 requests",
            ),
            (
                "vllm serve: error: argument --dtype: invalid choice: 'fp3' (choose from 'auto')",
                "vLLM refused the argument --dtype: invalid choice: 'fp3' (choose from 'auto')",
            ),
            (
                "OSError: You are trying to access a gated repo.",
                "this model is gated: its owner must grant access first",
            ),
            (
                "OSError: org/nope is not a local folder and is not a valid model identifier",
                "the hub knows no model org/nope, or does not show it to you",
            ),
            (
                "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
                "the model is not on this machine and the hub could not be reached",
            ),
            (
                "  Value error, Invalid repository ID or local directory specified: './m'.",
                "./m is no model folder and no name on the hub",
            ),
            (
                "ValueError: Model architectures ['NewForCausalLM'] are not supported for now.",
                "this vLLM does not support the architecture ['NewForCausalLM']",
            ),
            (
                "  Value error, World size (8) is larger than the number of available GPUs (2) in",
                "the model is to be split over 8 GPUs and there are 2",
            ),
            (
                "  Value error, Total number of attention heads (32) must be divisible by tensor "
                "parallel size (3).",
                "32 attention heads cannot be split over 3 GPUs",
            ),
            (
                "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
                "the NVIDIA driver is too old for the CUDA that this vLLM was built with",
            ),
            (
                "RuntimeError: Failed to infer device type, please set the environment variable",
                "vLLM found no GPU that it can use",
            ),
            (
                "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690",
                "the GPUs could not talk to each other (NCCL)",
            ),
            (
                "(EngineCore pid=9) ERROR 11-22 06:00:00 [multiproc_executor.py:315] Worker proc "
                "VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
                "one of the engine's worker processes died",
            ),
            (
                "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See "
                "stack trace (above) for the root cause.",
                "the engine core died",
            ),
            (
                "ModuleNotFoundError: No module named 'gguf'",
                "the Python module gguf is missing",
            ),
            (
                "RuntimeError: Engine core initialization failed. See root cause above.",
                "the engine core did not start",
            ),
        ],
        ids=lambda text: text[:30],
    )
    def test_failures_after_the_source(self, line: str, cause: str) -> None:
        found = explain(f"INFO something before\n{line}\nINFO something after\n")
        assert found is not None
        assert found[0] == cause

    def test_a_cause_goes_before_its_effects(self) -> None:
        log = (
            "EngineDeadError: EngineCore encountered an issue.\n"
            "ERROR [core.py] torch.OutOfMemoryError: CUDA out of memory.\n"
        )
        assert explain(log) == ("out of GPU memory", FIRST_OOM.advice)

    def test_every_pattern_can_word_itself(self) -> None:
        for failure in ADAPTER.failures:
            groups = dict.fromkeys(failure.pattern.groupindex, "x")
            assert failure.cause.format(**groups)
            assert "{{" not in failure.advice.format(**groups)

    @pytest.mark.parametrize(
        "start",
        [
            *("ERROR ", "[Errno 98]", "max_model_len (1", "Repo id must be in the form '", "a/"),
            *("memory on device", "Worker proc a", "Using cache directory: /", "Explicitly set "),
        ],
    )
    def test_a_megabyte_of_beginnings_is_searched_in_bounded_time(self, start: str) -> None:
        line = start * (1_000_000 // len(start))
        begun = time.process_time()
        assert explain(line) is None
        assert phases_in(line) == []
        assert time.process_time() - begun < 20  # unbounded skips would take many minutes


FIRST_OOM = next(f for f in ADAPTER.failures if f.cause == "out of GPU memory")


def explain(log: str) -> tuple[str, str] | None:
    """What the supervisor makes of the table: the first pattern that matches anywhere."""
    failure: FailurePattern
    for failure in ADAPTER.failures:
        if match := failure.pattern.search(log):
            return failure.cause.format(**match.groupdict()), failure.advice.format(
                **match.groupdict()
            )
    return None


def test_the_example_in_the_advice_is_json() -> None:
    failure = next(f for f in ADAPTER.failures if "not valid JSON" in f.cause)
    example = failure.advice.format().split("'")[1]
    assert json.loads(example)["method"] == "ngram"
