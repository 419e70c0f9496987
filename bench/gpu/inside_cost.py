"""Measures the cost and the accuracy of introspection on a real vLLM on a GPU.

    python -m bench.gpu.inside_cost MODEL --python PATH --out FOLDER [-- more vllm flags]

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random (``--load-format
dummy``). It takes less than six minutes. FOLDER gets:

- ``cost.json``: the cost, from eight pairs of introspection on and off, with 512 streams.
- ``truth.json``: the accuracy with 1, 64 and 512 streams: the TTFT by the engine and by a client,
  and the tokens by the step ring and by the engine's counters.
- ``steps.jsonl.gz``: the steps of these three loads, one object a line, as in ``llmtop steps
  --json``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.commands import LLMTOP
from bench.inside import vllm_cost, vllm_truth
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.core.steps import Step
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.operations.wiring import Wiring

SWITCH = Path(__file__).resolve().parent.parent / "inside" / "switch"
NAME = "inside-cost"
SERVED = "llama-8b-dummy"
FLAGS = (
    *("--load-format", "dummy", "--served-model-name", SERVED, "--max-model-len", "8192"),
    *("--max-num-seqs", "512"),
)
LEVELS = (1, 64, 512)
TRUTH_S = 8.0
# The lengths of answers differ much. Otherwise the requests of a closed loop run in waves.
WORDS, TOKENS = ("20", "60"), ("64", "448")
SHORT = ("32", "96")  # for the accuracy, which waits for the last answer


def start(args: argparse.Namespace, switch: Path) -> dict[str, Any]:
    """Start the engine with the plugin that switches introspection on and off."""
    switch.write_text("on")
    paths = [str(SWITCH), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LLMTOP_BENCH_SWITCH": str(switch),
    }
    command = [
        *(*LLMTOP, "run", "vllm", args.model, "--name", NAME, "--python", args.python),
        *("--detach", "--json", "--", *FLAGS, *args.flags),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit("the engine did not start")
    return dict(json.loads(done.stdout))


async def recorded(inside: EngineInside, until: asyncio.Task[Any]) -> list[Step]:
    """The steps of the engine until the task is done. Late answers are ignored."""
    steps: list[Step] = []
    while not until.done():
        with contextlib.suppress(LiveError):
            steps += (await inside.steps()).steps
        await asyncio.wait({until}, timeout=1.0)
    return steps


async def measure(args: argparse.Namespace, url: str, pid: int, socket: Path, switch: Path) -> None:
    """Measure accuracy, then cost. Each result is written when it is known."""
    inside = EngineInside(socket, timeout_s=30.0)
    flags = [url, "--model", SERVED, "--words", *WORDS]
    levels = map(str, args.levels)
    truth = vllm_truth.parser().parse_args(
        [
            *(url, str(socket), *flags[1:], "--tokens", *SHORT),
            *("--seconds", str(TRUTH_S), "--streams", *levels),
        ]
    )
    work = asyncio.create_task(vllm_truth.measure(truth))
    steps = await recorded(inside, work)
    (args.out / "truth.json").write_text(json.dumps(await work, indent=1))
    with gzip.open(args.out / "steps.jsonl.gz", "wb") as file:
        for step in steps:
            file.write(msgspec.json.encode(step) + b"\n")
    cost = vllm_cost.parser().parse_args(
        [
            *(*flags, "--tokens", *TOKENS, "--streams", str(args.streams)),
            *("--pairs", str(args.pairs), "--window", str(args.window)),
            *("--pid", str(pid), "--switch", str(switch), "--socket", str(socket)),
        ]
    )
    work_too = asyncio.create_task(asyncio.to_thread(vllm_cost.under_load, cost))
    await recorded(inside, work_too)  # reads steps like a screen does
    found = await work_too
    (args.out / "cost.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found["ratio_on_to_off"], indent=1))
    print(json.dumps({name: found[name] for name in vllm_cost.HOOKS}, indent=1))
    inside.close()


def main() -> None:
    """Start the engine, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True, help="the Python that has vLLM")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--streams", type=int, default=512)
    parser.add_argument(
        "--levels", type=int, nargs="+", default=LEVELS, help="numbers of streams for the accuracy"
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--window", type=float, default=8.0)
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:at])
    args.flags = given[at + 1 :]
    args.out.mkdir(parents=True, exist_ok=True)
    switch = args.out / "switch"
    begun = time.monotonic()
    record = start(args, switch)
    print(f"ready after {time.monotonic() - begun:.0f} s", flush=True)
    try:
        socket = Wiring().owned(NAME).live_socket
        assert socket is not None
        asyncio.run(measure(args, str(record["url"]), int(record["pid"]), socket, switch))
    finally:
        subprocess.run([*LLMTOP, "stop", NAME], check=False)
        print(f"done after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
