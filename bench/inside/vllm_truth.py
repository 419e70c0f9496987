"""Compares the introspection of a running vLLM with its counters and its client: tokens and TTFT.

    python -m bench.inside.vllm_truth URL SOCKET --streams 1 8 32 --seconds 20 --out truth.json

The tokens of the step ring are compared with the engine's own counters. The TTFT by the engine is
compared with that of a client, which includes the front end and the network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from llmtop.engines.core.latencies import LatencyHistogram
from llmtop.engines.core.steps import Step
from llmtop.engines.introspection.engine_inside import EngineInside

COUNTERS = {
    "output_tokens": "vllm:generation_tokens_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "draft_tokens": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
    "preempted": "vllm:num_preemptions_total",
}
QUANTILES = (0.5, 0.95, 0.99)
SETTLE_S = 1.5
SHARE, ABSOLUTE_S = 0.03, 0.002  # the allowed difference is the larger of the two


def counters(url: str) -> dict[str, float]:
    """The sums of the engine's own counters, by our names."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric + "{"))
        for name, metric in COUNTERS.items()
    }


def summed(steps: list[Step]) -> dict[str, float]:
    """The same sums over the steps of the ring."""
    fields = ("output_tokens", "draft_tokens", "accepted_tokens", "preempted")
    sums = {name: sum(getattr(step, name) or 0 for step in steps) for name in fields}
    return sums | {"prompt_tokens": sum(s.prefill_tokens + (s.cached_tokens or 0) for s in steps)}


def quantile(values: list[float], q: float) -> float | None:
    """The quantile by nearest rank, like that of the engine's histograms; None without values."""
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)), 1) - 1] if ordered else None


async def level(args: argparse.Namespace, inside: EngineInside, streams: int) -> dict[str, Any]:
    """Run one load. Returns the numbers of the engine and of the client."""
    await inside.steps()
    before, counted = await inside.latencies(), counters(args.url)
    flags = ["--streams", str(streams), "--seconds", str(args.seconds), "--model", args.model]
    flags += ["--words", *map(str, args.words), "--tokens", *map(str, args.tokens)]
    command = [sys.executable, "-m", "bench.inside.streams", args.url, *flags]
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert client.stdout is not None
    output = asyncio.create_task(client.stdout.read())
    steps: list[Step] = []
    lost = 0
    while not output.done():
        await asyncio.wait({output}, timeout=0.5)
        new = await inside.steps()
        steps, lost = [*steps, *new.steps], lost + new.lost
    seen = json.loads(await output)
    await client.wait()
    await asyncio.sleep(SETTLE_S)
    new = await inside.steps()
    steps, lost = [*steps, *new.steps], lost + new.lost
    after, counted_after = await inside.latencies(), counters(args.url)
    client_ttft = [ttft for _, ttft in seen["ttft"]]
    found: dict[str, LatencyHistogram] = {
        name: histogram.minus(before.histograms[name]) if name in before.histograms else histogram
        for name, histogram in after.histograms.items()
    }
    engine = found["ttft"]
    return {
        "streams": streams,
        "seconds": args.seconds,
        "steps": len(steps),
        "lost": lost,
        "finished": seen["finished"],
        "failed": seen["failed"],
        "tokens": {
            name: {"ring": total, "counter": counted_after[name] - counted[name]}
            for name, total in summed(steps).items()
        },
        "ttft": {
            "client_n": len(client_ttft),
            "engine_n": engine.count,
            **{
                f"p{round(q * 100)}": {
                    "client_s": quantile(client_ttft, q),
                    "engine_s": engine.quantile(q),
                }
                for q in QUANTILES
            },
        },
        "means_s": {n: h.sum_s / h.count if h.count else None for n, h in found.items()},
    }


def summary(found: dict[str, Any]) -> str:
    """The result of a load in lines of text: TTFT of both sides, their difference, and tokens."""
    ttft, tokens = found["ttft"], found["tokens"]
    n = f"n={ttft['client_n']}/{ttft['engine_n']}, {found['failed']} failed"
    lines = [f"{found['streams']:4} streams, {n}, {found['lost']} steps lost"]
    for name in (f"p{round(q * 100)}" for q in QUANTILES):
        client, engine = ttft[name]["client_s"], ttft[name]["engine_s"]
        if client and engine:
            off = engine - client
            agrees = abs(off) <= max(SHARE * client, ABSOLUTE_S)
            lines.append(
                f"     {name}  client {client * 1e3:9.1f} ms  engine {engine * 1e3:9.1f} ms"
                f"  {off * 1e3:+8.1f} ms ({off / client:+.1%})  {'agree' if agrees else 'APART'}"
            )
    off_by = (
        f"{name} {one['ring']:.0f}/{one['counter']:.0f}"
        for name, one in tokens.items()
        if one["counter"]
    )
    return "\n".join((*lines, f"     ring/counter: {', '.join(off_by)}"))


async def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all loads, one after another."""
    inside = EngineInside(args.socket, timeout_s=30.0)
    try:
        found = []
        for streams in args.streams:
            found.append(await level(args, inside, streams))
            print(summary(found[-1]), flush=True)
        return found
    finally:
        inside.close()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("url")
    found.add_argument("socket", type=Path)
    found.add_argument("--model", default="small")
    found.add_argument("--streams", type=int, nargs="+", default=(1, 8, 32))
    found.add_argument("--seconds", type=float, default=20.0)
    found.add_argument("--words", type=int, nargs=2, default=(20, 60))
    found.add_argument("--tokens", type=int, nargs=2, default=(40, 80))
    found.add_argument("--out", type=Path)
    return found


def main() -> None:
    """Measure, print each result, and write all to a file."""
    args = parser().parse_args()
    result = asyncio.run(measure(args))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
