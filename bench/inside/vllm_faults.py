"""Injects a fault into each part of introspection inside a running vLLM, one after another.

    python -m bench.inside.vllm_faults URL SOCKET --switch FILE --out faults.json

The engine runs with bench/inside/switch on its PYTHONPATH and FILE in LLMTOP_BENCH_SWITCH. After
each fault, introspection must be off and report the reason. The engine must answer, and every open
stream must end normally. Then introspection is restored and must show steps again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

from bench.inside.streams import Streams
from llmtop.engines.introspection.engine_inside import EngineInside

PARTS = (
    *("plans", "planned", "launches", "launched", "updates", "updated", "added", "admitted"),
    *("emitted", "removed", "row", "result", "launch", "poll"),
)
WORDS, TOKENS = (10, 20), (20, 40)
WITHIN_S = 60.0


def healthy(url: str) -> bool:
    """Whether /health answers 200."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def give_up(url: str, model: str) -> None:
    """Send a request and close the connection after its first token."""
    stream = asyncio.create_task(Streams(url, model, 1, WORDS, (500, 500)).run(0.1))
    await asyncio.sleep(2.0)
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def one(args: argparse.Namespace, part: str) -> dict[str, Any]:
    """Break one part under a load, and restore it. Returns the result."""
    inside = EngineInside(args.socket, timeout_s=30.0)
    loop = asyncio.get_running_loop()
    try:
        streams = Streams(args.url, args.model, 4, WORDS, TOKENS)
        load = asyncio.create_task(streams.run(4.0))
        await asyncio.sleep(1.0)
        args.switch.write_text(f"break:{part}")
        status = await inside.abilities()
        until = loop.time() + WITHIN_S
        while "steps" in status.abilities and loop.time() < until:
            await asyncio.sleep(0.2)
            if part == "row":
                await asyncio.gather(inside.requests(), return_exceptions=True)
            if load.done():  # some parts run only when a request arrives or is aborted
                await give_up(args.url, args.model)
            status = await inside.abilities()
        results = await load
        again = await Streams(args.url, args.model, 2, WORDS, TOKENS).run(0.5)
        found = {
            "part": part,
            "off": "steps" not in status.abilities,
            "reason": status.missing.get("steps"),
            "healthy": healthy(args.url),
            "streams": results.finished + again.finished,
            "failed": results.failed + again.failed,
        }
        args.switch.write_text("revive")
        await asyncio.sleep(0.5)
        await inside.steps()
        await Streams(args.url, args.model, 1, WORDS, TOKENS).run(0.2)
        return found | {"steps_after": len((await inside.steps()).steps)}
    finally:
        inside.close()


async def all_of_them(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Break all parts, one after another."""
    found = []
    for part in args.parts:
        found.append(await one(args, part))
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Run, print each result, and write all to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--switch", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--parts", nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = asyncio.run(all_of_them(args))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
