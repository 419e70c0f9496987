"""Why TensorRT-LLM failed, where it says more than any engine would.

After the text in TensorRT-LLM's, click's and pydantic's source and in public reports. None of it
was seen on a machine of ours. What every engine may write is in the tables of ``failures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmtop.engines.core.adapter import FailurePattern
from llmtop.engines.failures.machine_causes import any_of

_LESS = (
    "lower --kv_cache_free_gpu_memory_fraction, --max_num_tokens or --max_seq_len, or split "
    "the model with --tp_size"
)

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "engine": "TensorRT-LLM",
        "memory": "--kv_cache_free_gpu_memory_fraction",
        "batch": "--max_batch_size",
        "context": "--max_seq_len",
        "parallel": "--tp_size and --pp_size",
        "remote_code": "--trust_remote_code",
        "dtype_half": "a model in float16",
        "dtype_flag": "a model in that dtype",
        "eager": "--set cuda_graph_config=null",
        "internal_port": "MASTER_PORT",
        "host_memory": "--tp_size, a smaller host cache",
        "cache": "HF_HOME",
        "no_nvcc": "",
        "no_ray": "MPI",
        "no_custom_reduce": "--set allreduce_strategy=NCCL",
        "spawn": "the start method spawn",
        "watchdog": "a longer hang timeout",
    }
)

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
        r"(?P<key>[\w.]{1,100})\n\s{0,8}Extra inputs are not permitted",
        "the configuration has a key that this TensorRT-LLM does not know: {key}",
        "correct or remove it; keys come and go between versions",
    ),
    FailurePattern(
        r"Extra inputs are not permitted",
        "the configuration has a key that this TensorRT-LLM does not know",
        "the line before in the log names the key; keys come and go between versions",
    ),
    FailurePattern(
        r"Failed to bind socket to (?P<where>[^\n]{1,100}?): ",
        "it cannot have its port ({where})",
        "another process may hold it, or it lies below 1024: try another one with --port",
    ),
    # It prints the component and what to turn on lines of their own, after the first.
    FailurePattern(
        r"The following component could not be created: (?P<what>[^\n]{1,120})",
        "out of GPU memory while making: {what}",
        _LESS + "; read in the log's next lines how much was free, and keep the need below it",
    ),
    *any_of(
        "out of GPU memory",
        _LESS,
        r"Executor creation failed due to insufficient GPU memory",
        r"cudaMallocAsync[^\n]{0,160}out of memory",
    ),
    FailurePattern(
        r"Assertion failed: (?P<what>[^\n]{0,120}(?:maxTokensInPagedKvCache|KV ?cache|kv ?cache|"
        r"context tokens|max_num_tokens|maxNumTokens)[^\n]{0,200}?)"
        r"(?: \(/[^()\n]{1,200}:\d{1,6}\))?(?:\n|$)",
        "an assertion failed: {what}",
        "change --max_num_tokens, --max_seq_len or --kv_cache_free_gpu_memory_fraction so that it "
        "holds",
    ),
    *any_of(
        "the KV cache is too small for one sequence",
        "lower --max_seq_len, or raise --kv_cache_free_gpu_memory_fraction",
        r"maxTokensInPagedKvCache",
        r"[Ii]nsufficient (?:memory for )?(?:the )?KV cache",
    ),
    FailurePattern(
        r"[Ii]nsufficient memory[^\n]{0,160}",
        "not enough GPU memory: {line}",
        _LESS,
    ),
    FailurePattern(
        r"The engine plan file is (?P<what>[^\n]{1,120})",
        "the TensorRT engine file does not fit: it is {what}",
        "build it again with this TensorRT on this kind of GPU",
    ),
)
