"""The duration of one step on the virtual GPU (roofline model)."""

from __future__ import annotations

from msgspec import Struct

from llmtop.engines.simulated.simulator.model.hardware import DRAFT_MODEL_BYTES, Gpu, ModelShape

# Share of the datasheet's bandwidth that real kernels reach. Measured: a copy on an H200 moves 4.3
# of 4.8 TB/s. Other GPUs use the same share; it was not measured there.
BANDWIDTH_EFFICIENCY = 4.3 / 4.8
# Share of the peak FLOP/s in large steps. Measured: five steps a second of 8,192 tokens each with
# Llama-3.1-8B on an H200 at its power limit (engine counters, 512 and 1,024 streams). It includes
# norms, activations and sampling; a matrix product alone reaches 0.78 to 0.81.
COMPUTE_EFFICIENCY = 0.70
# Fixed time of a step for launches, scheduling and sampling. Fitted: one stream on the H200 has an
# ITL of 5.0 ms, of which reading 16.06 GB of weights at 4.3 TB/s takes 3.7 ms.
STEP_OVERHEAD_S = 1.2e-3
# Time per output token for sampling, detokenising and streaming. Fitted: decode steps with 8 to 848
# sequences (engine counters) gave 12 us; 10 us fits the calibration's throughput better (8, 9, 12
# and 15 us were compared).
FRONT_END_TOKEN_S = 10e-6
# Time of a request for HTTP, tokenising and two hops between processes, until the scheduler and
# back. Fitted to the TTFT p50 at one stream (19.5 ms with a prompt of 512 tokens): 5 ms gave
# 18.5 ms, 6 ms gave 19.5 ms.
FRONT_END_REQUEST_S = 6e-3
# n-gram proposals need the sampled tokens on the host, so vLLM disables asynchronous scheduling.
# Measured: ITL p50 at one stream is 6.4 ms instead of 5.0 ms, even if nothing is proposed.
NGRAM_STEP_S = 1.4e-3


class StepLoad(Struct, frozen=True):
    """The work of one step.

    tokens: computed tokens, drafts included. context: KV tokens that attention reads, summed over
    the sequences. pairs: query-context pairs of attention. emitted: sequences that emit tokens.
    drafts: length of the longest draft.
    """

    tokens: int
    context: int
    pairs: int
    emitted: int
    drafts: int = 0


class Roofline(Struct, frozen=True):
    """The costs of a step on one GPU (or a group) with one model, in seconds.

    Formula: step = fixed + max(weights, tokens * token) + attention + drafts + output. The dense
    layers take the longer of reading the weights and computing the tokens. Attention takes the sum
    of reading the KV cache (decodes) and computing pairs (prefills).
    """

    weights_s: float
    token_s: float
    context_token_s: float
    pair_s: float
    step_s: float
    emitted_s: float
    draft_pass_s: float

    @classmethod
    def of(
        cls, gpu: Gpu, model: ModelShape, tensor_parallel: int = 1, method: str = ""
    ) -> Roofline:
        """The costs of a model on a GPU.

        tensor_parallel: divides the work. All-reduces are not modelled, so the results for several
        GPUs are too good. method: of speculation: "", "ngram" or "draft".
        """
        bandwidth = gpu.bandwidth * BANDWIDTH_EFFICIENCY * tensor_parallel
        flops = gpu.flops * COMPUTE_EFFICIENCY * tensor_parallel
        return cls(
            weights_s=model.weight_bytes / bandwidth,
            token_s=2 * model.parameters / flops,
            context_token_s=model.kv_bytes_per_token / bandwidth,
            pair_s=model.attention_flops_per_pair / flops,
            step_s=STEP_OVERHEAD_S + (NGRAM_STEP_S if method == "ngram" else 0.0),
            emitted_s=FRONT_END_TOKEN_S,
            draft_pass_s=DRAFT_MODEL_BYTES / bandwidth if method == "draft" else 0.0,
        )

    def seconds(self, load: StepLoad) -> float:
        """Virtual seconds of one step."""
        dense = max(self.weights_s, load.tokens * self.token_s)
        attention = load.context * self.context_token_s + load.pairs * self.pair_s
        return (
            self.step_s
            + dense
            + attention
            + load.drafts * self.draft_pass_s
            + load.emitted * self.emitted_s
        )
