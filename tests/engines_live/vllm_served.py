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
# Without a worker process of its own the engine core starts 10 s sooner, for that one's imports;
# and it does not wait for the worker by yielding its core again and again, which took a second
# core from the clients: 57 tokens/s with two streams became 80.
ONE_PROCESS = (
    *(*FLAGS, *NGRAM, "--distributed-executor-backend"),
    "vllm.v1.executor.uniproc_executor.UniProcExecutor",
)
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # One core for the engine: a client needs one too, or it would be the limit.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "LLMTOP_TEST_ENGINE_CPU": "0",
}
WITH_WORKER = {"VLLM_CPU_OMP_THREADS_BIND": "0", "LLMTOP_TEST_ENGINE_CPU": ""}
