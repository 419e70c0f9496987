"""Measures how fast vLLM's front ends refuse requests above the queue limit.

    python -m bench.inside.vllm_gate URL SOCKET --streams 80 --limit 4 --out gate.json

A load keeps the queue full. Meanwhile single requests are sent, streaming and not, and the time to
each status 503 is measured. The result also has the longest queue, which must not exceed the limit.
The limit is set through all front ends, and set to 0 at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.inside.streams import Streams
from bench.inside.vllm_truth import quantile
from llmtop.engines.tuning.front_ends import WithFrontEnds
from llmtop.engines.tuning.live_ranks import RankedLive

LIMIT = "max_queued_requests"
WORDS, TOKENS = (10, 20), (100, 200)
FILL_S = 6.0


def probe(url: str, model: str, stream: bool) -> tuple[int, float, str]:
    """Send one request. Returns its status, the seconds until it, and its header Retry-After."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    body = {"model": model, "prompt": "one more", "max_tokens": 2, "stream": stream}
    headers = {"Content-Type": "application/json"}
    connection.connect()
    begun = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    took = time.monotonic() - begun
    answer.read()
    connection.close()
    return answer.status, took, answer.getheader("retry-after") or ""


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Fill the queue, set the limit, send probes, and remove the limit."""
    live = WithFrontEnds(RankedLive(args.socket), args.socket)
    load = asyncio.create_task(
        Streams(args.url, args.model, args.streams, WORDS, TOKENS).run(FILL_S + args.seconds)
    )
    await asyncio.sleep(FILL_S / 2)
    (change,) = await live.set({LIMIT: args.limit}, by="bench")
    await asyncio.sleep(FILL_S / 2)
    found: dict[bool, list[tuple[int, float, str]]] = {True: [], False: []}
    waiting: list[int] = []
    until = time.monotonic() + args.seconds
    while time.monotonic() < until:
        for stream, probes in found.items():
            probes.append(await asyncio.to_thread(probe, args.url, args.model, stream))
        waiting.append((await live.get()).waiting or 0)
        await asyncio.sleep(0.05)
    await live.set({LIMIT: 0}, by="bench")
    await load
    refused = {s: [took for status, took, _ in p if status == 503] for s, p in found.items()}
    return {
        "limit": args.limit,
        "acknowledged_ms": change.ack_ms,
        "outcome": change.outcome.value,
        "most_waiting": max(waiting),
        "probes": sum(map(len, found.values())),
        "retry_after": sorted({after for p in found.values() for status, _, after in p if after}),
        **{
            "streams" if stream else "plain": {
                "refused": len(times),
                **{f"p{round(q * 100)}_ms": _ms(quantile(times, q)) for q in (0.5, 0.95)},
                "least_ms": _ms(min(times, default=None)),
            }
            for stream, times in refused.items()
        },
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 2)


def main() -> None:
    """Measure, print the result, and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--streams", type=int, default=80)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = asyncio.run(measure(args))
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
