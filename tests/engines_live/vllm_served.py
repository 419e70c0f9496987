"""The real vLLM that scenarios share: how it is launched, without a hub and without a GPU."""

from __future__ import annotations

import json

from tests.engines_live.scenario import DTYPE

CAP = 16
FLAGS = (
    *("--served-model-name", "small", "--dtype", DTYPE, "--max-model-len", "2048"),
    *("--max-num-seqs", str(CAP), "--max-num-batched-tokens", "2048"),
    # Small blocks, as on a GPU: what was evicted finds nearly all of its prefix again.
    *("--block-size", "32", "--num-gpu-blocks-override", "800", "--enforce-eager"),
)
KV_TOKENS = 800 * 32
NGRAM = (
    "--speculative-config",
    json.dumps(
        {
            "method": "ngram",
            "num_speculative_tokens": 4,
            "prompt_lookup_max": 4,
            "prompt_lookup_min": 1,
        }
    ),
)
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # One core for the engine's threads: a client needs one too, or it would be the limit.
    "VLLM_CPU_OMP_THREADS_BIND": "0",
}
