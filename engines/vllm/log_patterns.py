"""Patterns of vLLM's log: start-up phases, memory, chosen option values.

Each pattern matches within one line and skips a bounded length: a log line may be a megabyte long
and contain users' text. Patterns marked "recorded" were seen in a log. The others follow the text
in the source of vLLM, PyTorch or Hugging Face.
"""

from __future__ import annotations

import re

from llmtop.engines.core.adapter import Phase
from llmtop.engines.logs.startup import DOWNLOAD

AUTOTUNING = re.compile(
    r"Running FlashInfer autotune|[Aa]uto[Tt]uning process starts|JIT kernel warmup starting"
)

# "ready" is not a phase here: the server's answer on the port decides it.
PHASES = (
    Phase("configuring", re.compile(r"non-default args:")),
    Phase("engine process", re.compile(r"Initializing a V1 LLM engine")),
    Phase("weights", re.compile(r"Starting to load model|Loading model from scratch")),
    Phase("download", DOWNLOAD),
    Phase(
        "shards",
        re.compile(
            r"(?:shards|Runai Model Streamer|InstantTensor loader): {0,4}\d{1,3}%"
            r".{0,60}?\b(?P<done>\d{1,7})/(?P<total>\d{1,7}) \["
        ),
    ),
    # The next line follows 7 to 12 s later (H200, 0.26).
    Phase("profiling", re.compile(r"Model loading took")),
    Phase(
        "compile",
        re.compile(
            r"Warming up model for the compilation|"
            r"Using cache directory: \S{1,400}torch_compile_cache"
        ),
    ),
    Phase(
        "KV cache",
        re.compile(
            r"Available KV cache memory:|KV cache size:|Explicitly set .{1,60} for KV cache"
        ),
    ),
    Phase(
        "DeepGEMM warm-up",
        re.compile(r"DeepGEMM warmup: .{0,80}?\b(?P<done>\d{1,7})/(?P<total>\d{1,7}) \["),
    ),
    Phase("autotuning", AUTOTUNING),
    # Appears at least twice: once for each kind of graph.
    Phase(
        "CUDA graphs",
        re.compile(
            r"Capturing (?:[\w -]{1,40} )?CUDA graphs(?: \((?P<part>[\w ,-]{1,40})\))?"
            r"(?:: .{0,80}?\b(?P<done>\d{1,7})/(?P<total>\d{1,7}) \[)?"
        ),
    ),
    Phase("warm-up", re.compile(r"Graph capturing finished")),
    Phase("API server", re.compile(r"init engine \(profile, create kv cache, warmup model\) took")),
)


# Memory at a start, GiB. The two summaries: 0.26 (recorded) and 0.32 (source).
MEMORY = (
    re.compile(r"Model loading took (?P<weights>[\d.]{1,12}) GiB"),
    re.compile(r"Available KV cache memory: (?P<kv>[\d.]{1,12}) GiB"),
    re.compile(r"reserved (?P<kv>[\d.]{1,12}) GiB memory for KV Cache"),
    re.compile(r"Graph capturing finished in .{1,40}, took (?P<graphs>[\d.]{1,12}) GiB"),
    re.compile(
        r"Free memory on device \S{0,20} ?\([\d.]{1,12}/(?P<total>[\d.]{1,12}) GiB\) on startup\. "
    ),
    re.compile(
        r"Actual usage is (?P<weights>[\d.]{1,12}) GiB for weight, "
        r"(?P<activations>[\d.]{1,12}) GiB for peak activation, "
        r"(?P<runtime>[\d.]{1,12}) GiB for non-torch memory"
    ),
    re.compile(
        r"Actual usage is (?P<consumed>[\d.]{1,12}) GiB for consumed memory .{1,40}, "
        r"(?P<activations>[\d.]{1,12}) GiB for peak activation"
    ),
)


_CONFIG = r"Initializing a V1 LLM engine .{1,3000}?, "

# Option values that vLLM chose. "Desired ... utilization" appears only on GPUs. Recorded: all but
# "disabled" (source).
EFFECTIVE = (
    re.compile(_CONFIG + r"max_seq_len=(?P<max_model_len>\d{1,12}),"),
    re.compile(_CONFIG + r"tensor_parallel_size=(?P<tensor_parallel_size>\d{1,6}),"),
    # vLLM writes None for no quantization, and accepts this word as a value.
    re.compile(_CONFIG + r"quantization=(?P<quantization>[\w-]{1,40}),"),
    re.compile(_CONFIG + r"enforce_eager=(?P<enforce_eager>True|False),"),
    re.compile(_CONFIG + r"kv_cache_dtype=(?P<kv_cache_dtype>\w{1,40}),"),
    re.compile(_CONFIG + r"enable_prefix_caching=(?P<enable_prefix_caching>True|False),"),
    re.compile(r"Asynchronous scheduling is (?P<async_scheduling>enabled|disabled)\."),  # 0.26
    re.compile(r"Async scheduling .{1,160}?\b(?:will be|is) (?P<async_scheduling>disabled)\b"),
    re.compile(r"Desired GPU memory utilization is \((?P<gpu_memory_utilization>[\d.]{1,12}), "),
)
