"""Causes of failure that only vLLM reports: its limits, with flag and value.

Patterns marked "recorded" were seen in a log. The others follow the text in vLLM's source (0.8 to
0.32) or in public reports. Messages that any engine can write are in the tables of ``failures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmtop.engines.core.adapter import FailurePattern
from llmtop.engines.failures.machine_causes import any_of

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "engine": "vLLM",
        "memory": "--gpu-memory-utilization",
        "batch": "--max-num-seqs",
        "context": "--max-model-len",
        "parallel": "--tensor-parallel-size",
        "remote_code": "--trust-remote-code",
        "dtype_half": "--dtype half",
        "dtype_flag": "--dtype",
        "eager": "--enforce-eager",
        "internal_port": "VLLM_PORT or MASTER_PORT, with data parallelism --data-parallel-rpc-port",
        "host_memory": "--cpu-offload-gb, --swap-space, --tensor-parallel-size",
        "cache": "HF_HOME, VLLM_CACHE_ROOT",
        "no_nvcc": ": VLLM_USE_FLASHINFER_SAMPLER=0, or another --attention-backend",
        "no_ray": "--distributed-executor-backend mp",
        "no_custom_reduce": "--disable-custom-all-reduce",
        "spawn": "VLLM_WORKER_MULTIPROC_METHOD=spawn",
        "watchdog": "VLLM_ENGINE_READY_TIMEOUT_S",
    }
)

ARGUMENTS = (
    FailurePattern(  # recorded
        r"error: unrecognized arguments: (?P<arguments>[^\n]{1,200})",
        "vLLM does not know the argument {arguments}",
        "check it against `vllm serve --help=all`; flags differ between versions",
    ),
    FailurePattern(  # recorded
        r"error: argument --speculative-config\S{0,20}: [^\n]{1,120}? cannot be converted",
        "--speculative-config is not valid JSON",
        "give one JSON object, quoted for the shell: "
        '\'{"method": "ngram", "num_speculative_tokens": 4}\'',
    ),
    FailurePattern(  # recorded
        r"error: argument (?P<flag>-[\w./-]{1,80}): (?P<what>[^\n]{1,200})",
        "vLLM refused the argument {flag}: {what}",
        "check it against `vllm serve --help=all`",
    ),
    FailurePattern(  # recorded
        r"validation errors? for SpeculativeConfig\n\s{0,8}(?P<what>[^\n]{1,200}"
        r"(?:\n\s{1,8}[^\n]{1,160})?)",
        "the speculative decoding configuration was refused: {what}",
        "methods are ngram, draft_model, eagle3, ...",
    ),
    FailurePattern(  # recorded
        r"max_model_len \((?P<asked>\d{1,12})\) is greater than the derived max_model_len "
        r"\(\w{1,60}=(?P<most>\d{1,12})",
        "--max-model-len {asked} is more than this model's limit of {most} tokens",
        "lower --max-model-len to {most} or omit it",
    ),
    FailurePattern(  # recorded
        r"max_num_batched_tokens \((?P<tokens>\d{1,12})\) must be greater than or equal to "
        r"max_num_seqs \((?P<seqs>\d{1,12})\)",
        "--max-num-batched-tokens {tokens} is less than --max-num-seqs {seqs}",
        "each running request needs one token in each step: raise the first or lower the second",
    ),
    FailurePattern(
        r"max_num_batched_tokens \((?P<tokens>\d{1,12})\) is smaller than max_model_len "
        r"\((?P<length>\d{1,12})\)",
        "--max-num-batched-tokens {tokens} is less than --max-model-len {length}",
        "raise --max-num-batched-tokens to {length}, or lower --max-model-len",
    ),
    FailurePattern(
        r"max_tokens_per_mm_item \((?P<item>\d{1,12})\) is larger than max_num_batched_tokens "
        r"\((?P<tokens>\d{1,12})\)",
        "one image or video of this model takes {item} tokens, and --max-num-batched-tokens is "
        "{tokens}",
        "raise --max-num-batched-tokens to {item}",
    ),
    FailurePattern(
        r"At most (?P<most>\d{1,6}) (?P<what>\w{1,30})\(s\) may be provided in one (?:prompt|"
        r"request)",
        "a prompt has more than {most} {what}s, the limit of --limit-mm-per-prompt",
        "raise --limit-mm-per-prompt for {what}",
    ),
    FailurePattern(
        r"LoRA rank (?P<rank>\d{1,6}) is greater than max_lora_rank (?P<most>\d{1,6})",
        "the LoRA adapter has rank {rank}, and --max-lora-rank is {most}",
        "start it with --max-lora-rank {rank}",
    ),
    FailurePattern(
        r"(?P<model>\w{1,80}) does not support LoRA yet",
        "vLLM cannot use LoRA adapters with {model}",
        "omit --enable-lora, or use a merged model",
    ),
    FailurePattern(
        r"(?P<what>Loading lora [^\n]{1,80} failed[^\n]{0,120})",
        "a LoRA adapter could not be loaded: {what}",
        "check the path in --lora-modules and that the adapter was made for this model",
    ),
    FailurePattern(
        r"specified in the model config \((?P<has>[\w.-]{1,40})\) does not match the quantization "
        r"method specified in the `quantization` argument \((?P<asked>[\w.-]{1,40})\)",
        "--quantization {asked} does not fit the model, which is quantised with {has}",
        "omit --quantization, or give --quantization {has}",
    ),
    FailurePattern(
        r"(?:Unknown|Invalid) quantization method: (?P<asked>[\w.-]{1,40})",
        "this vLLM does not know the quantisation {asked}",
        "check --quantization; a newer vLLM may know it",
    ),
    FailurePattern(
        r"(?P<what>(?:Invalid|No valid) attention backend[^\n]{0,160}|"
        r"Selected backend [^\n]{1,160})",
        "the attention backend cannot be used: {what}",
        "choose another --attention-backend, or omit it",
    ),
)

MEMORY = (
    FailurePattern(
        r"memory on (?:device|node) ?\S{0,40} ?\((?P<free>[\d.]{1,12})/(?P<total>[\d.]{1,12}) GiB\)"
        r" on startup is less than desired \w{1,8} memory utilization "
        r"\((?P<share>[\d.]{1,8}), (?P<asked>[\d.]{1,12}) GiB\)",
        "{asked} GiB of GPU memory are requested, but only {free} of {total} GiB are free",
        "another process holds the rest: end it, or lower --gpu-memory-utilization from {share}",
    ),
    FailurePattern(  # recorded
        r"No available memory for the cache blocks",
        "the weights left no memory for the KV cache",
        "raise --gpu-memory-utilization, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(  # recorded; with the length that fits in newer versions
        r"max seq len \((?P<length>\d{1,12})\), \(?(?P<asked>[\d.]{1,12}) GiB KV cache is needed, "
        r"which is larger than the available KV cache memory \((?P<free>[\d.]{1,12}) GiB\)"
        r"[^\n]{0,80}estimated maximum model length is (?P<most>\d{1,12})",
        "the KV cache cannot hold even one request of {length} tokens: it has {free} GiB, and "
        "{asked} are needed",
        "lower --max-model-len to {most}, or raise --gpu-memory-utilization",
    ),
    FailurePattern(
        r"max seq len \((?P<length>\d{1,12})\), \(?(?P<asked>[\d.]{1,12}) GiB KV cache is needed, "
        r"which is larger than the available KV cache memory \((?P<free>[\d.]{1,12}) GiB\)",
        "the KV cache cannot hold even one request of {length} tokens: it has {free} GiB, and "
        "{asked} are needed",
        "lower --max-model-len, or raise --gpu-memory-utilization",
    ),
    FailurePattern(
        r"max seq len \((?P<length>\d{1,12})\) is larger than the maximum number of tokens that "
        r"can be stored in KV cache \((?P<most>\d{1,12})\)",
        "the KV cache holds {most} tokens, and --max-model-len is {length}",
        "lower --max-model-len to {most}, or raise --gpu-memory-utilization",
    ),
    FailurePattern(  # of the simulated engine
        r"max seq len \((?P<length>\d{1,12})\), \d{1,12} tokens of KV cache are needed, which is "
        r"larger than the available KV cache memory \((?P<most>\d{1,12}) tokens\)",
        "the KV cache holds {most} tokens, and --max-model-len is {length}",
        "lower --max-model-len to {most}, or raise --gpu-memory-utilization",
    ),
    FailurePattern(
        r"max_num_seqs \((?P<seqs>\d{1,9})\) exceeds available Mamba cache blocks "
        r"\((?P<most>\d{1,9})\)",
        "--max-num-seqs {seqs} exceeds the {most} Mamba cache blocks that fit",
        "lower it: --max-num-seqs {most}, or raise --gpu-memory-utilization",
    ),
    FailurePattern(
        r"Cannot auto-fit max_model_len",
        "the GPU's memory does not hold the KV cache of a single token in addition to the weights",
        "raise --gpu-memory-utilization, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(  # recorded
        r"Available memory on node \d{1,4} \((?P<free>[\d.]{1,12})/[\d.]{1,12} GiB\) on kv cache "
        r"allocation is less than requested memory for kv \((?P<asked>[\d.]{1,12}) GiB\)",
        "the KV cache should take {asked} GiB, but {free} GiB are free",
        "lower --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE",
    ),
    FailurePattern(
        r"CUDA out of memory occurred when warming up (?:sampler|pooler) with "
        r"(?P<seqs>\d{1,9}) dummy requests",
        "out of GPU memory while warming up with {seqs} requests",
        "lower --max-num-seqs or --gpu-memory-utilization",
    ),
    *any_of(
        "another process freed or took GPU memory during the start",
        "start it when no other process starts or ends on the GPU",
        r"Error in memory profiling\. Initial free memory",
    ),
)

MACHINE = (
    *any_of(
        "its workers took longer than {seconds} s to become ready",
        "raise VLLM_ENGINE_READY_TIMEOUT_S",
        r"Timed out waiting for engine[^\n]{0,160}?(?:within|Waited) (?P<seconds>\d{1,7})",
    ),
)

FAILURES = (*ARGUMENTS, *MEMORY, *MACHINE)
