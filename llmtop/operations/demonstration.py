"""The engine and the load of the demo, which reaches both limits within 45 seconds.

The figures are of a virtual H200 with the 8B model. They come from a test that runs the scheduler
in virtual time. At about 96 streams, 25 s after the start of the load, the batch limit and the KV
cache are both full. At 160 streams, a smaller token budget reduces ITL p95 from 120 to 30 ms.
Speculation gives a fifth of the tokens/s. A lower batch limit reduces ITL and doubles the queue.
"""

from __future__ import annotations

from llmtop.loadgen.workload.plan import Prompts

# The ramp is slow enough to watch. Its end is far above both limits.
SHAPE = "hold 4 for 4s, ramp 4..160 over 36s, hold 160"

# The prompts are long so that the token budget has an effect: a step of 8,192 tokens takes 190 ms.
# The text is repetitive so that n-gram drafts are accepted.
PROMPTS = Prompts(prompt_tokens=(768, 1280), output_tokens=(160, 224), repetitive=True)

# 6,800 blocks of 16 tokens have room for as many of these requests as the batch limit admits,
# within one per cent. A draft token of repetitive text is accepted with probability 0.85, if those
# before it are. On average two thirds of the four tokens of a draft are accepted.
ENGINE = (
    *("--max-num-seqs", "96", "--num-gpu-blocks-override", "6800"),
    *("--speculative", "ngram:4", "--acceptance", "0.85"),
)

# A tour has its own prompts. Its captions say that the first loads are far below all limits.
TOUR_ENGINE = ("--max-num-seqs", "512", "--speculative", "ngram:4", "--acceptance", "0.85")
