"""What TensorRT-LLM's log tells: how far a start has come, and why one failed.

The phases are after a published log of trtllm-serve 1.1.0rc3, the failures after the text in
TensorRT-LLM's, click's and pydantic's source. None of it was seen on a machine of ours.
"""

from __future__ import annotations

import re

from llmtop.engines.adapter import FailurePattern, Phase

# It measures memory with a short KV cache, tunes and records graphs, then does both again with the
# whole one: that second round is the last phase.
PHASES = (
    Phase("importing", re.compile(r"TensorRT-LLM version:")),
    Phase("workers", re.compile(r"to spawn MPI processes|Refreshed the MPI local session")),
    Phase(
        "weights",
        re.compile(
            r"for model weights\."
            r"|Loading (?:safetensors )?weights\b[^\n]{0,200}?(?P<done>\d+)/(?P<total>\d+) \["
        ),
    ),
    Phase("KV cache", re.compile(r"Model init total|Number of tokens per block:")),
    Phase("autotuner", re.compile(r"Autotuning process starts|Running autotuner warmup")),
    Phase("CUDA graphs", re.compile(r"Creating CUDA graph instances")),
    Phase("memory profile", re.compile(r"in memory usage profiling:")),
    Phase("second round", re.compile(r"Estimated max memory in KV cache")),
    Phase("API server", re.compile(r"Started server process \[")),
)


# What a start reports of its memory; its GB are GiB (2^30 bytes). Of the KV cache the estimate, as
# that is told once: a short cache to measure with comes first, in the words of the whole one.
MEMORY = (
    re.compile(r"Use (?P<weights>[\d.]{1,12}) GB for model weights\."),
    re.compile(
        r"loading model weights \(inside torch\) in memory usage profiling: "
        r"(?P<weights>[\d.]{1,12}) GiB"
    ),
    re.compile(
        r"loading model weights \(outside torch\) in memory usage profiling: "
        r"(?P<runtime>[\d.]{1,12}) GiB"
    ),
    re.compile(
        r"Memory dynamically allocated during inference \(inside torch\) in memory usage "
        r"profiling: (?P<activations>[\d.]{1,12}) GiB"
    ),
    re.compile(r"Estimated max memory in KV cache ?: (?P<kv>[\d.]{1,12}) GiB"),
    re.compile(r"device total memory (?P<total>[\d.]{1,12}) GiB"),
)


# The order matters: the first that matches anywhere wins, so effects come after their causes.
FAILURES = (
    FailurePattern(
        r"No such option:? '?--set\b",
        "this trtllm-serve does not take --set beside a configuration file of yours",
        "put the setting into that file, or leave the file out and let llmtop write one",
    ),
    FailurePattern(
        r"No such option:? '?(?P<flag>-[\w-]{1,80})",
        "trtllm-serve does not know the flag {flag}",
        "check it against `trtllm-serve serve --help`; settings without a flag go as "
        "--set PATH=VALUE",
    ),
    FailurePattern(
        r"Error: Invalid value for (?P<flag>[^:\n]{1,120}): (?P<what>[^\n]{1,200})",
        "trtllm-serve refused {flag}: {what}",
        "check it against `trtllm-serve serve --help`",
    ),
    FailurePattern(
        r"Extra inputs are not permitted",
        "the configuration has a key that this TensorRT-LLM does not know",
        "the line before in the log names the key; keys come and go between versions",
    ),
    FailurePattern(
        r"\d+ validation errors? for (?P<what>\w{1,80})",
        "TensorRT-LLM refused a value of its configuration ({what})",
        "the lines after it in the log name the key and what is wrong with it",
    ),
    FailurePattern(
        r"Failed to bind socket to (?P<where>[^\n]{1,100}?): ",
        "it cannot have its port ({where})",
        "another process may hold it, or it lies below 1024: try another one with --port",
    ),
    FailurePattern(
        r"No GPU devices found on the node",
        "TensorRT-LLM found no GPU that it can use",
        "is the driver loaded (nvidia-smi), and does CUDA_VISIBLE_DEVICES name GPUs that exist?",
    ),
    FailurePattern(
        r"invalid device ordinal",
        "the model is to be split over more GPUs than there are",
        "lower --tp_size and --pp_size, or give more GPUs",
    ),
    FailurePattern(  # Open MPI's, which starts a worker for each rank
        r"There are not enough slots available in the system",
        "MPI does not start as many workers as the model is split over",
        "lower --tp_size and --pp_size, or allow more in OMPI_MCA_rmaps_base_oversubscribe",
    ),
    # It prints the component and what to turn on lines of their own, after the first.
    FailurePattern(
        r"The following component could not be created: (?P<what>[^\n]{1,120})",
        "out of GPU memory while making: {what}",
        "lower --kv_cache_free_gpu_memory_fraction, --max_num_tokens or --max_seq_len, or split "
        "the model with --tp_size; the log's next lines tell what was free",
    ),
    FailurePattern(
        r"Executor creation failed due to insufficient GPU memory",
        "out of GPU memory",
        "lower --kv_cache_free_gpu_memory_fraction, --max_num_tokens or --max_seq_len, or split "
        "the model with --tp_size",
    ),
    FailurePattern(
        r"Executor creation failed with NCCL error",
        "the GPUs could not talk to each other (NCCL)",
        "run again with NCCL_DEBUG=INFO; in a container check --shm-size and --ipc=host",
    ),
    FailurePattern(
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory",
        "out of GPU memory",
        "lower --kv_cache_free_gpu_memory_fraction, or see who else is on the GPU",
    ),
    # Effects, when no cause above was found.
    FailurePattern(
        r"CppExecutorError",
        "the executor failed, and the server shut itself down",
        "see the first traceback before it in the log",
    ),
    FailurePattern(
        r"Executor worker returned error",
        "a worker process did not start",
        "see the first traceback before it in the log",
    ),
)
