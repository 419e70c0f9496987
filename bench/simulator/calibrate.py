"""The simulated engine beside recorded runs of vLLM on an H200, in virtual time.

    python -m bench.simulator.calibrate [--seed 1]

First the run that the constants were fitted to, step by step; then n-gram speculation with four
draft tokens, half of the requests greedy, whose acceptance was picked by looking at this table.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import median
from typing import Any

from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import (
    BLOCK_SIZE,
    GPUS,
    MODELS,
    kv_blocks,
    kv_cache_gib,
)
from llmtop.engines.simulated.simulator.model.roofline import Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from tests.closed_loop import ClosedLoop, Lengths, StepResult, run

RECORDED = Path(__file__).parents[2] / "tests" / "data" / "simulator_vllm_h200.json"
GPU, MODEL = GPUS["h200"], MODELS["llama-3.1-8b"]
FIGURES = {
    "output_tokens_per_s": "tok/s",
    "ttft_ms": "TTFT p50",
    "itl_ms": "ITL p50",
    "itl_p99_ms": "ITL p99",
    "tpot_ms": "TPOT p50",
}
# vLLM 0.26.0 on the same card, same lengths: tok/s and ITL p50 (ms) by concurrency.
NGRAM = {1: (182, 6.4), 8: (1133, 7.7), 32: (3915, 9.9), 128: (6121, 36.0), 256: (6412, 39.0)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1, help="of the load: lengths and prompts")
    seed = parser.parse_args().seed
    recorded: dict[str, Any] = json.loads(RECORDED.read_text())
    steps = recorded["steps"]
    results = simulate(
        [(step["concurrency"], step["seconds"]) for step in steps], None, (1.0,), seed
    )
    print("recorded / simulated (error)\n")
    print("| streams |" + "".join(f" {title} |" for title in FIGURES.values()))
    print("|---|" + "---|" * len(FIGURES))
    for step, result in zip(steps, results, strict=True):
        cells = [cell(step[name], getattr(result, name)) for name in FIGURES]
        print(f"| {result.concurrency} | " + " | ".join(cells) + " |")
    for name, title in FIGURES.items():
        pairs = zip(steps, results, strict=True)
        off = [abs(getattr(result, name) / step[name] - 1) for step, result in pairs]
        print(f"{title}: median error {median(off):.1%}, worst {max(off):.1%}")

    print("\nn-gram, 4 draft tokens, half greedy (acceptance picked by this table)\n")
    print("| streams | tok/s | ITL p50 |\n|---|---|---|")
    ngram = simulate(
        [(count, 10.0) for count in NGRAM], Speculation("ngram", 4, 0.6), (0.0, 1.0), seed
    )
    for result, (rate, itl) in zip(ngram, NGRAM.values(), strict=True):
        cells = [cell(rate, result.output_tokens_per_s), cell(itl, result.itl_ms)]
        print(f"| {result.concurrency} | " + " | ".join(cells) + " |")


def simulate(
    steps: list[tuple[int, float]],
    speculation: Speculation | None,
    temperatures: tuple[float, ...],
    seed: int,
) -> list[StepResult]:
    blocks = kv_blocks(kv_cache_gib(GPU, MODEL, 0.92, 1), MODEL, 1)
    drafts = speculation.tokens if speculation else 0
    limits = Limits(GPU.max_num_seqs, GPU.max_num_batched_tokens, drafts)
    scheduler = Scheduler(
        limits,
        BlockPool(blocks, BLOCK_SIZE),
        random.Random(0),
        speculation,
        asynchronous=speculation is None,
    )
    roofline = Roofline.of(GPU, MODEL, method=speculation.method if speculation else "")
    loop = ClosedLoop(scheduler, roofline, Lengths(temperatures=temperatures), random.Random(seed))
    return run(loop, steps, warm_up_s=3.0)


def cell(recorded: float, simulated: float) -> str:
    digits = 0 if recorded >= 1000 else 1
    error = simulated / recorded - 1
    return f"{recorded:,.{digits}f} / {simulated:,.{digits}f} ({error:+.0%})"


if __name__ == "__main__":
    main()
