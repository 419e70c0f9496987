"""The virtual GPUs and the dimensions of the models, with the source of each figure."""

from __future__ import annotations

from msgspec import Struct

GIB = 1 << 30


class Gpu(Struct, frozen=True):
    """A GPU with the figures of its datasheet.

    memory_gib: total memory that the driver reports. bandwidth: peak memory bandwidth, bytes/s.
    flops: peak dense bf16, FLOP/s. max_num_seqs, max_num_batched_tokens: the defaults of vLLM's API
    server on such a GPU (they depend on the memory size, and on whether the name contains A100).
    """

    name: str
    title: str
    memory_gib: float
    bandwidth: float
    flops: float
    max_num_seqs: int
    max_num_batched_tokens: int


GPUS = {
    gpu.name: gpu
    for gpu in (
        # NVIDIA A100 80GB SXM datasheet: 2,039 GB/s, 312 TFLOP/s bf16 dense.
        Gpu("a100-80gb", "NVIDIA A100-SXM4-80GB", 80.0, 2039e9, 312e12, 256, 2048),
        # NVIDIA H100 SXM datasheet: 3,350 GB/s, 990 TFLOP/s bf16 dense; 81,559 MiB in the driver.
        Gpu("h100", "NVIDIA H100 80GB HBM3", 79.6, 3350e9, 990e12, 1024, 8192),
        # NVIDIA H200 SXM datasheet: 4,800 GB/s, 990 TFLOP/s bf16 dense; 139.8 GiB in the driver.
        Gpu("h200", "NVIDIA H200", 139.8, 4800e9, 990e12, 1024, 8192),
    )
}


class ModelShape(Struct, frozen=True):
    """The dimensions of a transformer that determine its costs. kv_heads: heads of keys, values."""

    name: str
    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    bytes_per_value: int = 2  # bf16, weights and KV alike

    @property
    def weight_bytes(self) -> float:
        """All weights, bytes."""
        return self.parameters * self.bytes_per_value

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values, over all KV heads and layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value

    @property
    def attention_flops_per_pair(self) -> int:
        """FLOPs of one query token with one context token: two products, 2 FLOPs per element."""
        return 4 * self.layers * self.heads * self.head_dim


MODELS = {
    model.name: model
    for model in (
        # "The Llama 3 Herd of Models" (arXiv 2407.21783), table 3; parameters: the model cards.
        ModelShape("llama-3.1-8b", 8.03e9, 32, 32, 8, 128, 128256),
        ModelShape("llama-3.1-70b", 70.55e9, 80, 64, 8, 128, 128256),
    )
}

# Llama 3.2 1B, the usual draft model of this family: 1.24e9 parameters (its model card).
DRAFT_MODEL_BYTES = 1.24e9 * 2

# Memory for other purposes than weights and KV cache: peak activations and the runtime. Measured:
# with Llama-3.1-8B on an H200, vLLM 0.26 requested 0.92 x 139.8 GiB, loaded 15.0 GiB of weights and
# had 112.28 GiB left for the KV cache.
RESERVED_GIB = 0.92 * 139.8 - 15.0 - 112.28
# The part of it for peak activations, reported by the same vLLM. CUDA graphs are additional.
ACTIVATIONS_GIB = 1.1
GRAPHS_GIB = 0.98

BLOCK_SIZE = 16  # tokens; vLLM's default on CUDA


def kv_cache_gib(gpu: Gpu, model: ModelShape, utilization: float, tensor_parallel: int) -> float:
    """GiB for the KV cache on one GPU; 0 or negative if the model does not fit."""
    weights = model.weight_bytes / tensor_parallel / GIB
    return gpu.memory_gib * utilization - weights - RESERVED_GIB


def kv_blocks(kv_gib: float, model: ModelShape, tensor_parallel: int) -> int:
    """The number of blocks in ``kv_gib`` per GPU; each GPU stores its share of the heads."""
    per_block = model.kv_bytes_per_token * BLOCK_SIZE / tensor_parallel
    return max(0, int(kv_gib * GIB // per_block))
