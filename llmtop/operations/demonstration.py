"""The engine and the load of the demo, which reaches both limits within 45 seconds.

Figures of a virtual H200 with the 8B model, from the scheduler in virtual time (its test): the
batch limit and the KV cache are both reached at about 96 streams, 25 s after the load began. At
160 streams a smaller token budget takes ITL p95 from 120 to 30 ms, speculation is worth a fifth of
the tokens/s, and a lower batch limit shortens ITL and doubles the queue.
"""

from __future__ import annotations

from llmtop.loadgen.workload.plan import Prompts

# Slow enough to watch, and well past both limits at its end.
SHAPE = "hold 4 for 4s, ramp 4..160 over 36s, hold 160"

# Long prompts, so that the token budget matters: a step of 8,192 tokens takes 190 ms. Text that
# repeats itself, so that n-gram drafts are right.
PROMPTS = Prompts(prompt_tokens=(768, 1280), output_tokens=(160, 224), repetitive=True)

# 6,800 blocks of 16 tokens hold as many of these requests as the batch limit admits, to a per cent.
# Of a draft token of perfectly guessable text 0.85 are right: two of three tokens of a draft.
ENGINE = (
    *("--max-num-seqs", "96", "--num-gpu-blocks-override", "6800"),
    *("--speculative", "ngram:4", "--acceptance", "0.85"),
)

# A tour has prompts of its own, and says that its first loads are far from any limit.
TOUR_ENGINE = ("--max-num-seqs", "512", "--speculative", "ngram:4", "--acceptance", "0.85")
