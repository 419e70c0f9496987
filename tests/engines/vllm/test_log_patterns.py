"""What the vLLM adapter makes of logs that real engines wrote."""

from __future__ import annotations

import gzip
import json
import re
import time

import pytest

from llmtop.engines.failures.table import GENERAL
from llmtop.engines.failures.words import worded
from llmtop.engines.logs.startup import StartupLog
from llmtop.engines.vllm.adapter import ADAPTER
from tests.failure_logs import told
from tests.folders import TESTS

DATA = TESTS / "data" / "vllm"


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
        # Random weights: nothing was downloaded or read, and no kernel was made for them.
        left_out = {"download", "shards", "DeepGEMM warm-up", "autotuning"}
        assert phases_in(recorded("start_h200_0.26.log")) == [
            phase.word for phase in ADAPTER.phases if phase.word not in left_out
        ]

    def test_what_takes_long_counts(self) -> None:
        start = StartupLog(ADAPTER.phases)
        seen = []
        for line in [
            "(EngineCore pid=9) INFO 11-22 06:04:01 [runner.py:284] Loading model from scratch",
            "(Worker_TP0 pid=9) INFO 11-22 06:04:01 [x.py:1] Starting to load model /m...",
            "Fetching 4 files:  25%|##5       | 1/4 [00:10<00:30,  9.99s/it]",
            "Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]",
            "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01, 1.2it/s]",
            "Model loading took 15.0 GiB and 1.49 seconds",
            "Available KV cache memory: 112.28 GiB",
            "DeepGEMM warmup:  12%|#2        | 12/100 [00:01<00:08, 9.9it/s]",
            "INFO 11-22 06:04:22 [k.py:368] Running FlashInfer autotune with 8192 tokens",
            "Capturing CUDA graphs (PIECEWISE):   6%|5         | 3/51 [00:00<00:01, 24.41it/s]",
            "Capturing CUDA graphs (decode, FULL):  8%|8      | 4/35 [00:00<00:01, 33.73it/s]",
            "Capturing prefill CUDA graphs (FULL):  8%|8      | 5/35 [00:00<00:01, 33.73it/s]",
        ]:
            start.feed([line], 0.0)
            seen.append(start.phase)
        assert seen == [
            *("weights", "weights", "download 1/4", "shards 0/4", "shards 2/4", "profiling"),
            *("KV cache", "DeepGEMM warm-up 12/100", "autotuning", "CUDA graphs 3/51 piecewise"),
            *("CUDA graphs 4/35 decode, full", "CUDA graphs 5/35 full"),
        ]

    def test_the_phases_of_a_start_on_cpu(self) -> None:
        assert phases_in(recorded("start_cpu_0.32.log")) == [
            *("configuring", "engine process", "weights", "shards", "compile", "KV cache"),
            "API server",
        ]

    @pytest.mark.parametrize("name", ["start_h200_0.26.log", "start_cpu_0.32.log"])
    def test_a_start_and_stop_that_went_well_has_no_failure_in_it(self, name: str) -> None:
        found = explain(recorded(name))
        assert found is None or found[0].startswith("ended by SIG")

    @pytest.mark.parametrize(
        "name, cause",
        [
            ("bad_flag", "vLLM does not know the argument --max-num-seq-typo 4"),
            (
                "bad_model",
                "no model at /srv/llm/nope: it is neither a local folder nor a name on the hub",
            ),
            ("bad_spec_json", "--speculative-config is not valid JSON"),
            (
                "bad_spec_method",
                "the speculative decoding configuration was refused: method Input should be 'ngr",
            ),
            ("kv_too_big", "the KV cache should take 100.0 GiB, but 12.68 GiB are free"),
            ("kv_too_small", "the KV cache cannot hold even one request of 2048 tokens"),
            (
                "maxlen_gt_model",
                "--max-model-len 99999 is more than this model's limit of 4096 tokens",
            ),
            ("mnbt_lt_seqs", "--max-num-batched-tokens 2048 is less than --max-num-seqs 4096"),
            ("no_cache_blocks", "the weights left no memory for the KV cache"),
            ("port_in_use", "its port was taken by another process"),
            ("sched_cls_missing", "its Python environment lacks the module 'no_such_mod'"),
        ],
    )
    def test_recorded_failures(self, name: str, cause: str) -> None:
        found = explain(recorded(f"fail_{name}.log"))
        assert found is not None
        assert found[0].startswith(cause)
        assert found[1]

    @pytest.mark.parametrize(
        "line, cause",
        [
            (
                "ValueError: Free memory on device cuda:0 (10.12/79.11 GiB) on startup is less "
                "than desired GPU memory utilization (0.92, 72.78 GiB). Decrease GPU memory "
                "utilization or reduce GPU memory used by other processes.",
                "72.78 GiB of GPU memory are requested, but only 10.12 of 79.11 GiB are free",
            ),
            (
                "ValueError: Free memory on device (10.12/79.11 GiB) on startup is less than "
                "desired GPU memory utilization (0.9, 71.2 GiB).",
                "71.2 GiB of GPU memory are requested, but only 10.12 of 79.11 GiB are free",
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
                "the model is gated: its owner must grant access first",
            ),
            (
                "OSError: org/nope is not a local folder and is not a valid model identifier",
                "the hub has no model org/nope, or you have no access to it",
            ),
            (
                "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
                "the model is not on this machine and the hub could not be reached",
            ),
            (
                "  Value error, Invalid repository ID or local directory specified: './m'.",
                "./m is neither a model folder nor a name on the hub",
            ),
            (
                "ValueError: Model architectures ['NewForCausalLM'] are not supported for now.",
                "this vLLM does not support the architecture ['NewForCausalLM']",
            ),
            (
                "  Value error, World size (8) is larger than the number of available GPUs (2) in",
                "the model should be split over 8 GPUs, but there are 2",
            ),
            (
                "  Value error, Total number of attention heads (32) must be divisible by tensor "
                "parallel size (3).",
                "32 attention heads cannot be split over 3 GPUs",
            ),
            (
                "AssertionError: tp_size 3 must divide num_heads 32",
                "the model cannot be split over so many GPUs: tp_size 3 must divide num_heads 32",
            ),
            (
                "Last error:\nCuda failure 'peer access is not supported between these two "
                "devices'",
                "two GPUs cannot reach each other's memory (peer access): peer access is not "
                "supported between these two devices",
            ),
            (
                "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
                "the NVIDIA driver is too old for the CUDA that this engine was built with (it "
                "offers CUDA version 11040)",
            ),
            (
                "RuntimeError: Failed to infer device type, please set the environment variable",
                "it found no usable NVIDIA GPU",
            ),
            (
                "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690",
                "the GPUs could not talk to each other (NCCL): NCCL error in: "
                "ProcessGroupNCCL.cpp:3690",
            ),
            (
                "(EngineCore pid=9) ERROR 11-22 06:00:00 [multiproc_executor.py:315] Worker proc "
                "VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
                "its process VllmWorker-0 was killed (SIGKILL)",
            ),
            (
                "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See "
                "stack trace (above) for the root cause.",
                "the engine core died",
            ),
            (
                "RuntimeError: Engine core process EngineCore_DP1 died unexpectedly.",
                "the engine core died",
            ),
            (
                "ModuleNotFoundError: No module named 'gguf'",
                "its Python environment lacks the module 'gguf'",
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
        found = explain(log)
        assert found is not None and found[0] == "out of GPU memory"

    def test_every_pattern_can_word_itself(self) -> None:
        for failure in (*ADAPTER.failures, *GENERAL):
            groups = {**dict.fromkeys(failure.pattern.groupindex, "x"), "line": "y"}
            for text in (failure.cause, failure.advice):
                shown = worded(text, ADAPTER.failure_words, groups)
                assert shown or text == failure.advice
                assert not re.search(r"\{\w", shown), failure.expression

    @pytest.mark.more
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
        explain(line)
        assert phases_in(line) == []
        assert time.process_time() - begun < 20  # unbounded skips would take many minutes


def explain(log: str) -> tuple[str, str] | None:
    """Cause and advice, as the supervisor words them."""
    found = told("vllm", log.splitlines(), None)
    return None if found is None else (found.cause, found.advice)


def test_the_example_in_the_advice_is_json() -> None:
    failure = next(f for f in ADAPTER.failures if "not valid JSON" in f.cause)
    example = failure.advice.split("'")[1]
    assert json.loads(example)["method"] == "ngram"


def test_our_own_guard_is_never_why_an_engine_died() -> None:
    core = "(EngineCore_DP1 pid=12) WARNING 11-30 11:24:00 [scheduler_control.py:242] "
    log = [
        f"{core}llmtop: live options are off, launch values restored",
        f"{core}Traceback (most recent call last):",
        f'{core}  File "/x/scheduler_control.py", line 170, in step',
        f"{core}    self._apply(orders)",
        f"{core}TypeError: not what was expected",
        "(APIServer pid=10) Traceback (most recent call last):",
        '(APIServer pid=10)   File "/x/vllm/v1/utils.py", line 591, in wait_for_completion',
        "(APIServer pid=10) RuntimeError: Engine core process EngineCore_DP1 died unexpectedly.",
    ]
    found = explain("\n".join(log))
    assert found is not None and found[0] == "the engine core died"


def test_a_killed_rank_is_no_request_to_end_although_the_servers_shut_down_for_it() -> None:
    client = "(ApiServer_1 pid=658) ERROR 11-30 10:45:40 [async_llm.py:906] "
    main = "(MainProcess pid=303) ERROR 11-30 10:45:40 [utils.py:599] "
    core = "RuntimeError: Engine core process EngineCore_DP1 died unexpectedly."
    log = [
        "(ApiServer_0 pid=657) INFO:     Application startup complete.",
        "(EngineCore_DP0 pid=655) INFO 11-30 10:45:35 [core.py:1454] [shutdown] EngineCore: "
        "trigger received signal=SIGTERM",
        f"{main}Exception occurred while running API servers: {core[14:]}",
        f"{main}Traceback (most recent call last):",
        f'{main}  File "/x/vllm/v1/utils.py", line 591, in wait_for_completion_or_failure',
        f"{main}    raise RuntimeError(",
        f"{main}{core}",
        f"{client}AsyncLLM output_handler failed.",
        f"{client}Traceback (most recent call last):",
        f'{client}  File "/x/vllm/v1/engine/async_llm.py", line 849, in output_handler',
        f"{client}    outputs = await engine_core.get_output_async()",
        f"{client}vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
        "INFO:     Shutting down",
        "INFO:     Waiting for application shutdown.",
        "INFO:     Application shutdown complete.",
        "Traceback (most recent call last):",
        '  File "/x/vllm/v1/utils.py", line 591, in wait_for_completion_or_failure',
        "    raise RuntimeError(",
        core,
    ]
    found = explain("\n".join(log))
    assert found is not None and found[0] == "the engine core died"
    # Without its last traceback, which a kill may cut off, it is so too.
    found = explain("\n".join(log[:-4]))
    assert found is not None and found[0] == "the engine core died"
