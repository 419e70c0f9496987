"""Measures the cost of introspection in a running vLLM: on and off in turn under one load.

    python -m bench.inside.vllm_cost URL --socket SOCKET --pid PID --switch FILE --streams 64

The engine runs with bench/inside/switch on its PYTHONPATH and FILE in LLMTOP_BENCH_SWITCH. The
order is on off, off on, on off, ... Each pair gives a ratio on / off. The result is the geometric
mean of the ratios with its 95 % interval by Student's t. Output tokens are vLLM's own counter. A
pair with a window without tokens has no ratio. It is left out and counted. The result also has a
direct measurement: the CPU time of the hooks, as a share of the time of the engine's thread and of
the event loop of a front end. It does not include effects of the hooks elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
T_975 |= {11: 2.201, 15: 2.131, 19: 2.093, 23: 2.069}
RAMP_S = 8.0
# The load ends when the measurement ends. Its duration is not known: with 512 streams, a request to
# /metrics takes seconds.
LOAD_S = 3600.0
HOOKS = ("hooks_share_of_thread", "hooks_us_a_step")
MEASURES = ("tokens_per_s", "step_s", "cpu_s_per_1000_tokens")

Window = dict[str, float | None]
Pair = dict[str, Window]


class Snapshot:
    """Totals of the engine at one moment: tokens, steps, recorded steps (of the ring), and the CPU
    seconds of its processes."""

    def __init__(self, url: str, path: Path, switch: Path, processes: list[psutil.Process]) -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=120) as answer:
            text = answer.read().decode()
        self.time = time.monotonic()
        self.tokens = _sum(text, "vllm:generation_tokens_total")
        self.steps = _sum(text, "vllm:iteration_tokens_total_count")
        self.recorded = recorded(path)
        times = [process.cpu_times() for process in processes]
        self.cpu_s = sum(one.user + one.system for one in times)
        self.hooks_s = {kind: hooks_s(switch, kind) for kind in ("engine", "front_end")}


def hooks_s(switch: Path, kind: str) -> float:
    """CPU seconds of llmtop's hooks in the process where they took most; 0.0 without hooks."""
    found = [one.read_text() for one in switch.parent.glob(f"{switch.name}.{kind}.*")]
    return max((float(text) for text in found if text), default=0.0)


def recorded(path: Path) -> int:
    """The number of steps that the ring has recorded so far."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(b'{"op": "steps", "since": null, "limit": 0, "protocol": 2}\n')
        with connection.makefile("rb") as lines:
            return int(json.loads(lines.readline())["next"]) - 1


def _sum(text: str, name: str) -> float:
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for value in found)


def window(seconds: float, tokens: float, steps: float, cpu_s: float) -> Window:
    """The measures of a window; None where a value is 0 and gives no ratio."""
    return {
        "tokens_per_s": tokens / seconds if tokens > 0 else None,
        "step_s": seconds / steps if steps > 0 else None,
        "cpu_s_per_1000_tokens": cpu_s / tokens * 1000 if tokens > 0 and cpu_s > 0 else None,
    }


def compare(pairs: list[Pair]) -> dict[str, dict[str, float | None]]:
    """The ratio on / off with its interval, by measure. n: pairs with a ratio. left_out: pairs
    without one."""
    found: dict[str, dict[str, float | None]] = {}
    for name in MEASURES:
        both = [(pair["on"][name], pair["off"][name]) for pair in pairs]
        ratios = [on / off for on, off in both if on and off]
        found[name] = {**interval(ratios), "left_out": float(len(pairs) - len(ratios))}
    return found


def interval(ratios: list[float]) -> dict[str, float | None]:
    """The geometric mean of the ratios and its 95 % interval; no interval for fewer than two."""
    if not ratios:
        return {"value": None, "low": None, "high": None, "n": 0.0}
    logs = [math.log(ratio) for ratio in ratios]
    mean = sum(logs) / len(logs)
    spread = math.sqrt(sum((one - mean) ** 2 for one in logs) / max(1, len(logs) - 1))
    found: dict[str, float | None] = {"value": math.exp(mean), "low": None, "high": None}
    if len(logs) > 1:
        half = T_975.get(len(logs) - 1, 2.0) * spread / math.sqrt(len(logs))
        found |= {"low": math.exp(mean - half), "high": math.exp(mean + half)}
    return found | {"n": float(len(logs))}


def measure(args: argparse.Namespace, load: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Measure all pairs while a load runs.

    Exits when the load ends, when steps were recorded while introspection was off, or when none
    were recorded while it was on and the engine made tokens.
    """
    server = psutil.Process(args.pid)
    processes = [server, *server.children(recursive=True)]
    found: list[Pair] = []
    shares: dict[str, list[float]] = {"engine": [], "front_end": []}
    a_step: list[float] = []
    for number in range(args.pairs):
        pair: Pair = {}
        for arm in ("on", "off") if number % 2 == 0 else ("off", "on"):
            args.switch.write_text(arm)
            time.sleep(args.settle)
            before = Snapshot(args.url, args.socket, args.switch, processes)
            time.sleep(args.window)
            after = Snapshot(args.url, args.socket, args.switch, processes)
            if load.poll() is not None:
                sys.exit("the load ended before everything was measured")
            tokens, steps = after.tokens - before.tokens, after.steps - before.steps
            new = after.recorded - before.recorded
            if new if arm == "off" else tokens and not new:
                sys.exit(f"{arm}: {new} steps were recorded")
            seconds = after.time - before.time
            pair[arm] = window(seconds, tokens, steps, after.cpu_s - before.cpu_s)
            if arm == "on":
                took = {kind: after.hooks_s[kind] - before.hooks_s[kind] for kind in shares}
                for kind, share in shares.items():
                    share.append(took[kind] / seconds)
                a_step.append(1e6 * took["engine"] / steps if steps > 0 else 0.0)
        found.append(pair)
    args.switch.write_text("on")
    return {
        "ratio_on_to_off": compare(found),
        "hooks_share_of_thread": {kind: spread(share) for kind, share in shares.items()},
        "hooks_us_a_step": spread(a_step),
        "window_s": args.window,
        "pairs": found,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most; of none nothing."""
    if not values:
        return {}
    return {"median": sorted(values)[len(values) // 2], "least": min(values), "most": max(values)}


def load_command(args: argparse.Namespace, seconds: float) -> list[str]:
    """The command of the load."""
    return [
        *(sys.executable, "-m", "bench.inside.streams", args.url, "--model", args.model),
        *("--streams", str(args.streams), "--seconds", str(seconds)),
        *("--words", *map(str, args.words), "--tokens", *map(str, args.tokens)),
    ]


def under_load(args: argparse.Namespace) -> dict[str, Any]:
    """Start the load, wait until all streams run, and measure."""
    load = subprocess.Popen(load_command(args, LOAD_S), stdout=subprocess.DEVNULL)
    try:
        time.sleep(args.ramp)
        return {"streams": args.streams, **measure(args, load)}
    finally:
        load.terminate()
        load.wait()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("url")
    found.add_argument("--socket", type=Path, required=True, help="the live-option socket")
    found.add_argument("--pid", type=int, required=True, help="of the API server")
    found.add_argument("--switch", type=Path, required=True)
    found.add_argument("--model", default="small")
    found.add_argument("--streams", type=int, default=64)
    found.add_argument("--pairs", type=int, default=8)
    found.add_argument("--window", type=float, default=10.0)
    found.add_argument("--settle", type=float, default=1.0)
    found.add_argument("--ramp", type=float, default=RAMP_S, help="seconds until all streams run")
    found.add_argument("--words", type=int, nargs=2, default=(20, 60))
    found.add_argument("--tokens", type=int, nargs=2, default=(64, 448))
    found.add_argument("--out", type=Path)
    return found


def main() -> None:
    """Measure, print the ratios, and write the result to a file."""
    args = parser().parse_args()
    result = under_load(args)
    text = json.dumps(result, indent=1)
    print(
        json.dumps(
            {name: result[name] for name in ("streams", "ratio_on_to_off", *HOOKS)},
            indent=1,
        )
    )
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
