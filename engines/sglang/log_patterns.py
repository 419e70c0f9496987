"""Patterns of SGLang's log: start-up phases, memory, chosen option values.

Each pattern matches within one line. Patterns marked "recorded" were seen in a log of 0.5.16 on a
GPU, or of 0.5.21 or 0.5.23 on a CPU. The others follow the text in the source of SGLang, PyTorch or
Hugging Face.
"""

from __future__ import annotations

import re

from llmtop.engines.core.adapter import Phase
from llmtop.engines.logs.startup import DOWNLOAD

# "ready" is not a phase here: the server's answer on the port decides it. The log line "fired up
# and ready to roll" also appears if another server on the port answered the warm-up.
PHASES = (
    Phase("configuring", re.compile(r"\bserver_args=")),
    Phase("scheduler process", re.compile(r"Init (?:torch distributed|parallel) begin")),
    Phase("weights", re.compile(r"Load weight begin")),
    Phase("download", DOWNLOAD),
    Phase("shards", re.compile(r"shards: .{0,80}?\b(?P<done>\d+)/(?P<total>\d+) \[")),
    Phase("KV cache", re.compile(r"Load weight end|KV Cache is allocated|Memory pool end")),
    Phase("autotuning", re.compile(r"Running FlashInfer autotune|FlashInfer autotune with")),
    Phase(
        "DeepGEMM warm-up",
        re.compile(
            r"DeepGEMM warmup: .{0,80}?\b(?P<done>\d{1,7})/(?P<total>\d{1,7}) \["
            r"|Entering DeepGEMM JIT Pre-Compile"
        ),
    ),
    Phase(
        "CUDA graphs",
        re.compile(
            r"Capture [\w ]{0,40}(?i:cuda graph) begin"
            r"|Capturing (?:num tokens|batches) .{0,120}?\b(?P<done>\d+)/(?P<total>\d+) \["
        ),
    ),
    Phase("API server", re.compile(r"max_total_num_tokens=\d+, chunked_prefill_size=")),
    Phase("warm-up", re.compile(r"Uvicorn running on")),
)


def _argument(name: str, value: str) -> re.Pattern[str]:
    # A call up to 0.5.16, a dict in 0.5.21 and later.
    return re.compile(
        rf"\bserver_args=.{{1,3900}}?(?:, {name}=|, '{name}': )'?(?P<{name}>{value})'?[,)}}]"
    )


# Option values that SGLang chose. Recorded.
EFFECTIVE = (
    _argument("mem_fraction_static", r"[\d.]{1,20}"),
    _argument("chunked_prefill_size", r"-?\d{1,12}"),
    _argument("max_prefill_tokens", r"\d{1,12}"),
    _argument("schedule_policy", r"[\w-]{1,40}"),
    _argument("quantization", r"(?!None)[\w-]{1,40}"),
    _argument("kv_cache_dtype", r"\w{1,40}"),
    _argument("disable_radix_cache", r"True|False"),
    _argument("disable_overlap_schedule", r"True|False"),
    re.compile(
        r"max_total_num_tokens=\d+, .{0,200}?max_running_requests=(?P<max_running_requests>\d+), "
        r"context_len=(?P<context_length>\d+)"
    ),
)


# Memory at a start; its GB are GiB (2^30 bytes). Recorded with 0.5.16 on an H200.
MEMORY = (
    re.compile(r"Load weight end\..{1,300}? mem usage=(?P<weights>[\d.]{1,12}) GB"),
    re.compile(
        r"KV Cache is allocated\..{1,120}? K size: (?P<keys>[\d.]{1,12}) GB, "
        r"V size: (?P<values>[\d.]{1,12}) GB"
    ),
    re.compile(r"prefill CUDA graph end\..{1,60}? mem usage=(?P<prefill_graphs>[\d.]{1,12}) GB"),
    re.compile(r"decode CUDA graph end\..{1,60}? mem usage=(?P<decode_graphs>[\d.]{1,12}) GB"),
)
