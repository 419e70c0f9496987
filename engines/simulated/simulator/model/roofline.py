"""How long one step takes on the virtual GPU."""

from __future__ import annotations

from msgspec import Struct

from llmtop.engines.simulated.simulator.model.hardware import DRAFT_MODEL_BYTES, Gpu, ModelShape

# Share of the datasheet's bandwidth that real kernels reach: a copy on an H200 moves 4.3 of its
# 4.8 TB/s. Taken over unmeasured for the other cards.
BANDWIDTH_EFFICIENCY = 4.3 / 4.8
# Share of the peak FLOP/s in large steps: five steps a second of 8,192 tokens each, Llama-3.1-8B
# on an H200 at its power limit (engine counters, the steps with 512 and 1,024 streams). A bare
# product reaches 0.78 to 0.81 of the peak; norms, activations and sampling are in this figure.
COMPUTE_EFFICIENCY = 0.70
# Launches, scheduling and sampling of a step however small. Fitted: one stream on the H200 has an
# ITL of 5.0 ms, of which reading 16.06 GB of weights at 4.3 TB/s takes 3.7 ms.
STEP_OVERHEAD_S = 1.2e-3
# Per token that leaves the engine: sampling its row, detokenising, streaming it. First 12 us, from
# the length of decode steps with 8 to 848 sequences in the engine's counters; then lowered to
# 10 us, for which the calibration's throughput came out closer (8, 9, 12, 15 us were tried too).
FRONT_END_TOKEN_S = 10e-6
# From the request's arrival to the scheduler, and of the first token back: HTTP, tokenising, two
# hops between processes. Fitted to the TTFT p50 at one stream (19.5 ms with a prompt of 512): 5 ms
# gave 18.5 ms, 6 ms 19.5 ms.
FRONT_END_REQUEST_S = 6e-3
# n-gram proposals need the sampled tokens on the host, so vLLM turns asynchronous scheduling off:
# ITL p50 at one stream 6.4 ms instead of 5.0 ms, whether or not anything is proposed.
NGRAM_STEP_S = 1.4e-3


class StepLoad(Struct, frozen=True):
    """What a step has to do.

    tokens: computed in it, drafts included. context: KV tokens read by its attention, summed over
    the sequences. pairs: query-context pairs of its attention. emitted: tokens that leave the
    engine (at most one before speculation is counted). drafts: longest draft proposed.
    """

    tokens: int
    context: int
    pairs: int
    emitted: int
    drafts: int = 0


class Roofline(Struct, frozen=True):
    """Seconds for each thing that a step does, on one GPU (or a group) and one model.

    The dense layers take the longer of reading the weights and computing the tokens. Attention
    comes on top: decodes read the KV cache, prefills compute, so both are added up. Then the
    fixed costs.
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
        """The roofline of a model on a card.

        tensor_parallel: a plain division of the work; the all-reduces between cards are left out,
        so more than one card is flattered. method: "", "ngram" or "draft".
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
