"""Patterns of TensorRT-LLM's log: start-up phases and memory.

They follow a published log of trtllm-serve 1.1.0rc3 and the text in TensorRT-LLM's source. They
were never tested with a running TensorRT-LLM.
"""

from __future__ import annotations

import re

from llmtop.engines.core.adapter import Phase

# TensorRT-LLM first measures memory with a short KV cache, tunes kernels and captures graphs. Then
# it repeats this with the full KV cache: the phase "second round".
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


# Memory at a start; its GB are GiB (2^30 bytes). For the KV cache, the estimate is used, because it
# appears once. The lines of the short and of the full KV cache have the same text.
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
