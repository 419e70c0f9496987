"""Causes of failure that only TensorRT-LLM reports.

The patterns follow the text in the source of TensorRT-LLM, click and pydantic, and public reports.
They were never tested with a running TensorRT-LLM. Messages that any engine can write are in the
tables of ``failures``.
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
        "trtllm-serve does not accept --set together with your own configuration file",
        "put the setting into that file, or omit the file and let llmtop write one",
    ),
    FailurePattern(
        r"No such option:? '?(?P<flag>-[\w-]{1,80})",
        "trtllm-serve does not know the flag {flag}",
        "check it against `trtllm-serve serve --help`; give a setting without a flag as "
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
        "correct or remove it; keys differ between versions",
    ),
    FailurePattern(
        r"Extra inputs are not permitted",
        "the configuration has a key that this TensorRT-LLM does not know",
        "the previous line in the log names the key; keys differ between versions",
    ),
    FailurePattern(
        r"Failed to bind socket to (?P<where>[^\n]{1,100}?): ",
        "the port cannot be opened ({where})",
        "another process may use it, or it is below 1024: choose another one with --port",
    ),
    # The component and the advice are on separate lines after the first.
    FailurePattern(
        r"The following component could not be created: (?P<what>[^\n]{1,120})",
        "out of GPU memory while creating: {what}",
        _LESS + "; the next lines of the log show how much memory was free",
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
        "change --max_num_tokens, --max_seq_len or --kv_cache_free_gpu_memory_fraction so that the "
        "condition is true",
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
        "the TensorRT engine file cannot be used: it is {what}",
        "build it again with this TensorRT version on this type of GPU",
    ),
)
