"""The start of the engine: its phases and failures, with vLLM's log lines."""

from __future__ import annotations

import asyncio
import time

from llmtop import __version__
from llmtop.engines.simulated.simulator.arguments import Config, kv_blocks
from llmtop.engines.simulated.simulator.model.hardware import (
    ACTIVATIONS_GIB,
    BLOCK_SIZE,
    GIB,
    GRAPHS_GIB,
    RESERVED_GIB,
)
from llmtop.engines.simulated.simulator.model.log import log

# Shares of the whole start. They are not those of vLLM, so that each phase is long enough to be
# seen: a start with Llama-3.1-8B on an H200 took 96 s, mostly imports and compilation, with 1.5 s
# for (random) weights and 4 s for CUDA graphs.
WEIGHTS, CACHE, GRAPHS, SERVER = 0.4, 0.2, 0.25, 0.15


class StartFailed(Exception):
    """The engine cannot start; the text is the root cause for the log."""


async def start(config: Config) -> int:
    """Run the phases of the start. Returns the number of KV blocks. Raises StartFailed."""
    seconds = config.startup_s
    if slow := config.misbehaviours.get("slow-start"):
        seconds = max(seconds, slow.seconds)
    begun = time.monotonic()
    limits = config.limits
    if limits.max_num_batched_tokens < limits.max_num_seqs:
        raise StartFailed(
            f"ValueError: max_num_batched_tokens ({limits.max_num_batched_tokens}) must be greater "
            f"than or equal to max_num_seqs ({limits.max_num_seqs})."
        )
    cards = f"{config.tensor_parallel} x " if config.tensor_parallel > 1 else ""
    log(f"Starting to load model {config.model.name} onto {cards}{config.gpu.title} (simulated)...")
    await asyncio.sleep(WEIGHTS * seconds)
    weights = config.model.weight_bytes / config.tensor_parallel / GIB
    log(f"Model loading took {weights:.1f} GiB and {WEIGHTS * seconds:.2f} seconds")
    await asyncio.sleep(CACHE * seconds)
    blocks = _cache(config)
    log("Capturing CUDA graphs (simulated)")
    await asyncio.sleep(GRAPHS * seconds)
    log(f"Graph capturing finished in {GRAPHS * seconds:.0f} secs, took {GRAPHS_GIB} GiB")
    _report(config, weights)
    log(f"init engine took {time.monotonic() - begun:.2f} s")
    await asyncio.sleep(SERVER * seconds)
    return blocks


def log_configuration(config: Config) -> None:
    """Log the first lines: that this is a simulation, and its configuration."""
    log(f"llmtop simulated engine {__version__}: a virtual GPU, no model; simulated numbers only")
    limits = config.limits
    log(
        f"args: gpu={config.gpu.name} model={config.model.name} "
        f"max_num_seqs={limits.max_num_seqs} "
        f"max_num_batched_tokens={limits.max_num_batched_tokens} "
        f"max_model_len={config.max_model_len} "
        f"num_speculative_tokens={limits.num_speculative_tokens} speed={config.speed:g} "
        f"seed={config.seed}"
    )


def _report(config: Config, weights: float) -> None:
    """Log the use of the GPU's memory, with the summary line of vLLM 0.26."""
    total, share = config.gpu.memory_gib, config.utilization
    log(
        f"Free memory on device ({total}/{total} GiB) on startup. Desired GPU memory utilization "
        f"is ({share}, {share * total:.2f} GiB). Actual usage is {weights:.1f} GiB for weight, "
        f"{ACTIVATIONS_GIB} GiB for peak activation, {RESERVED_GIB - ACTIVATIONS_GIB:.2f} GiB for "
        f"non-torch memory, and {GRAPHS_GIB} GiB for CUDAGraph memory (simulated)."
    )


def _cache(config: Config) -> int:
    blocks = 0 if "fail-start" in config.misbehaviours else kv_blocks(config)
    if blocks < 1:
        raise StartFailed(
            "ValueError: No available memory for the cache blocks. "
            "Try increasing `gpu_memory_utilization` (simulated)."
        )
    tokens = blocks * BLOCK_SIZE
    available = tokens * config.model.kv_bytes_per_token / config.tensor_parallel / GIB
    log(f"Available KV cache memory: {available:.2f} GiB")
    if tokens < config.max_model_len:
        raise StartFailed(
            f"ValueError: To serve at least one request with the model's max seq len "
            f"({config.max_model_len}), {config.max_model_len} tokens of KV cache are needed, "
            f"which is larger than the available KV cache memory ({tokens} tokens). "
            f"Try decreasing `max_model_len` (simulated)."
        )
    log(f"GPU KV cache size: {tokens:,} tokens")
    share = tokens / config.max_model_len
    log(f"Maximum concurrency for {config.max_model_len:,} tokens per request: {share:.2f}x")
    return blocks
