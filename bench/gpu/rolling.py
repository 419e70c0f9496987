"""Makes a rolling restart of a real vLLM under the screen's own load. Prints and writes JSON.

usage: python -m bench.gpu.rolling MODEL --python PATH --out RESULT.json

It needs two GPUs. The engine starts on GPU 0. The controller of the screen starts the new engine on
GPU 1, moves the load to it and stops the old one. The result has the requests that failed or were
cut off (there must be none), and the tokens per second during the move.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.commands import llmtop
from bench.gpu.supervision import FLAGS, used_mib
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.runtime import DashboardRuntime

NAME = "roll"
PROMPTS = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144))
STEADY_S = 10.0
CHANGE = {"max_num_seqs": 128}


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true. Raises TimeoutError after a minute."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


async def move(streams: int) -> dict[str, Any]:
    """Make a rolling restart under load. Returns what happened to the requests."""
    wiring = Wiring()
    stage = DashboardRuntime(wiring, [wiring.owned(NAME)], prompts=PROMPTS, interval=0.5)
    seconds: list[dict[str, Any]] = []

    def load() -> LoadSnapshot:
        assert stage.load_source.load is not None
        return stage.load_source.load.snapshot()

    def urls() -> str:
        assert stage.load_source.load is not None
        return stage.load_source.load.target.url

    async def watch() -> None:
        while True:
            now = load()
            seconds.append(
                {
                    "at_s": round(time.monotonic() - began, 1),
                    "url": urls(),
                    "ok": now.ok,
                    "failed": now.failed,
                    "tokens_per_s": now.output_tokens_per_s,
                    "ttft_p95_s": now.ttft.p95,
                }
            )
            await asyncio.sleep(1.0)

    sampling = asyncio.create_task(stage.sampling.run())
    began = time.monotonic()
    try:
        await until(lambda: stage.store.engines[NAME].sample is not None)
        await stage.controller.start(Plan(shape=f"hold {streams}"))
        watching = asyncio.create_task(watch())
        await asyncio.sleep(STEADY_S)
        asked_s = time.monotonic() - began
        done = await stage.controller.restart(NAME, CHANGE, rolling=True)
        ready_s = time.monotonic() - began
        await asyncio.sleep(STEADY_S)
        watching.cancel()
        await stage.controller.stop_load()
        await until(lambda: not load().in_flight)
        last = load()
        return {
            "streams": streams,
            "asked_at_s": asked_s,
            "done_at_s": ready_s,
            "rolled_back": done.rolled_back,
            "failure": done.failure,
            "down_s": done.down_s,
            "took_s": done.took_s,
            "requests": {"ok": last.ok, "failed": last.failed, "cut": last.cut},
            "errors": dict(last.errors),
            "used_mib": [used_mib(0), used_mib(1)],
            "events": [event.text for event in stage.store.events],
            "seconds": seconds,
        }
    finally:
        await stage.controller.quit(stop_engines=False)
        sampling.cancel()
        await stage.sampling.close()
        stage.release()
        await wiring.fetch.close()


def main() -> None:
    """Start the engine, restart it under load, and stop it."""
    parser = argparse.ArgumentParser(description="A rolling restart under load on two GPUs.")
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--streams", type=int, default=64)
    args = parser.parse_args()
    llmtop(
        *("run", "vllm", args.model, "--python", args.python, "--detach", "--json"),
        *("--name", NAME, "--gpus", "0", "--", *FLAGS),
    )
    try:
        result = asyncio.run(move(args.streams))
    finally:
        llmtop("stop", NAME, "--json")
    result["used_mib_after"] = [used_mib(0), used_mib(1)]
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "seconds"}, indent=1))


if __name__ == "__main__":
    main()
