"""Changes live options of a real vLLM on a real GPU through llmtop. Prints tables, writes JSON.

usage: python -m bench.gpu.live_options MODEL --python PATH --out RESULT.json [-- more vllm flags]

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random (``--load-format
dummy``), which needs the same arithmetic. Two engines run one after the other. The first has the
default configuration and 512 streams, for the batch limits. The second has n-gram speculation and
32 greedy streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.commands import LLMTOP, llmtop
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.operations.wiring import Wiring

COMMON = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192"),
)
RAMP = "double 1..512 every 2s, hold 512 for 190s"
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "112..144")
SEGMENT_S = 6.0
# With 512 streams, the requests of a closed loop end and begin together, in waves of about 10 s. A
# window must be several waves long.
WAVES_S = 30.0
SETTLE_S = 5.0


class Engine:
    """An engine started by ``llmtop run``. Its metrics are also read directly, as a check."""

    def __init__(self, name: str, model: str, python: str, flags: tuple[str, ...]) -> None:
        begun = time.monotonic()
        self.record = llmtop(
            *("run", "vllm", model, "--name", name, "--python", python),
            *("--detach", "--json", "--", *COMMON, *flags),
        )
        self.start_s = time.monotonic() - begun
        self.name, self.url = name, str(self.record["url"])
        path = Wiring().owned(name).live_socket
        assert path is not None
        self._socket = path

    def metric(self, name: str) -> float:
        """The present sum over all series of a metric."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for value in found)

    @property
    def running(self) -> float:
        """The number of running requests."""
        return self.metric("vllm:num_requests_running")

    def wait_for(self, condition: Callable[[], bool], within_s: float) -> float | None:
        """Wait for a condition. Returns the seconds, None when it was false for ``within_s``."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > within_s:
                return None
            time.sleep(0.03)
        return time.monotonic() - begun

    def rate(self, seconds: float = SEGMENT_S) -> float:
        """The generated tokens per second over the next ``seconds``."""
        name = "vllm:generation_tokens_total"
        before, begun = self.metric(name), time.monotonic()
        time.sleep(seconds)
        return (self.metric(name) - before) / (time.monotonic() - begun)

    def change(self, option: str, value: int, evict: bool = False) -> dict[str, Any]:
        """Change one option through the live-option socket, as the screen does."""

        async def ask() -> dict[str, Any]:
            client = LiveClient(self._socket)
            try:
                (change,) = await client.set({option: value}, evict=evict, by="bench")
            finally:
                await client.close()
            return {
                "option": option,
                "from": change.before,
                "to": change.after,
                "evict": evict,
                "outcome": change.outcome.value,
                "reason": change.reason,
                "ack_ms": change.ack_ms,
                "evicted": change.evicted,
            }

        return asyncio.run(ask())

    def window(self) -> dict[str, Any]:
        """The sample of ``llmtop once`` over the next ``WAVES_S`` seconds."""
        sample: dict[str, Any] = llmtop("once", self.name, "--window", str(WAVES_S), "--json")
        return sample

    def load(self, *args: str) -> subprocess.Popen[str]:
        """Start a load in the background."""
        return subprocess.Popen(
            [*LLMTOP, "load", self.name, *args, "--json"], stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> float:
        """Stop the engine. Returns the seconds that it took."""
        begun = time.monotonic()
        llmtop("stop", self.name, "--json")
        return time.monotonic() - begun


def batch_limits(engine: Engine) -> dict[str, Any]:
    """Lower and raise the batch limit and the token budget, with 512 streams."""
    steps: list[dict[str, Any]] = []

    def cap(value: int, reached: Callable[[float], bool], evict: bool = False) -> None:
        step = engine.change("max_num_seqs", value, evict)
        step["seen_s"] = engine.wait_for(lambda: reached(engine.running), 20)
        step["running"] = engine.running
        steps.append(step)

    with engine.load("--shape", RAMP, *LENGTHS) as load:
        reached = engine.wait_for(lambda: engine.running >= 480, 120)
        cap(64, lambda n: n <= 64)
        time.sleep(SETTLE_S)
        cap(512, lambda n: n >= 480)
        time.sleep(SETTLE_S)
        cap(64, lambda n: n <= 64, evict=True)
        time.sleep(SETTLE_S)
        cap(1024, lambda n: n >= 480)
        budgets: list[dict[str, Any]] = [{"budget": "as launched", "window": engine.window()}]
        for budget in (512, 2048, 8192):
            step = engine.change("max_num_batched_tokens", budget)
            steps.append(step)
            time.sleep(SETTLE_S)
            budgets.append({"budget": budget, "window": engine.window()})
        out, _ = load.communicate(timeout=300)
    return {
        "ramp_reached_s": reached,
        "budgets": budgets,
        "steps": steps,
        "load": json.loads(out),
    }


def speculation(engine: Engine, drafts: int) -> dict[str, Any]:
    """Switch speculation off, on, and to fewer drafts, with 32 greedy streams."""
    steps: list[dict[str, Any]] = []
    flags = ("-c", "32", "-d", "55", *LENGTHS, "--repetitive", "--temperature", "0")
    with engine.load(*flags) as load:
        engine.wait_for(lambda: engine.running >= 30, 60)
        steps.append({"option": "as launched", "output_tokens_per_s": engine.rate()})
        for value in (0, drafts, 1):
            step = engine.change("num_speculative_tokens", value)
            made = engine.metric("vllm:spec_decode_num_drafts_total")
            step["output_tokens_per_s"] = engine.rate()
            made = engine.metric("vllm:spec_decode_num_drafts_total") - made
            step["drafts_per_s"] = made / SEGMENT_S
            steps.append(step)
        for value, evict in ((8, True), (1024, False)):
            step = engine.change("max_num_seqs", value, evict)

            def reached(evict: bool = evict) -> bool:
                return (engine.running <= 8) is evict

            step["seen_s"] = engine.wait_for(reached, 20)
            step["output_tokens_per_s"] = engine.rate()
            steps.append(step)
        out, _ = load.communicate(timeout=300)
    return {"steps": steps, "load": json.loads(out)}


def table(title: str, part: dict[str, Any]) -> list[str]:
    """The result of a part as Markdown."""
    requests = part["load"]["requests"]
    lines = [
        f"### {title}",
        "",
        f"{requests['ok']} requests ended well, {requests['failed']} failed.",
        "",
        "| change | acknowledged | evicted | seen in running after | tok/s after |",
        "|---|---|---|---|---|",
    ]
    for step in part["steps"]:
        if "ack_ms" not in step:
            lines.append(f"| {step['option']} | | | | {step['output_tokens_per_s']:,.0f} |")
            continue
        how = " --evict" if step["evict"] else ""
        seen = step.get("seen_s")
        rate = step.get("output_tokens_per_s")
        lines.append(
            f"| {step['option']} {step['from']} -> {step['to']}{how} "
            f"| {step['outcome']}, {step['ack_ms']:.0f} ms | {step['evicted'] or ''} "
            f"| {'' if 'seen_s' not in step else '--' if seen is None else f'{seen:.2f} s'} "
            f"| {'' if rate is None else f'{rate:,.0f}'} |"
        )
    return [*lines, ""]


def budget_table(budgets: list[dict[str, Any]]) -> list[str]:
    """The windows under each token budget as Markdown."""

    def ms(found: dict[str, Any], name: str) -> str:
        """A percentile in ms, or the ends of its range."""
        seconds = found[name]
        if seconds is not None:
            return f"{seconds * 1e3:,.0f}"
        low, high = found.get(f"{name}_at_least"), found.get(f"{name}_at_most")
        if low is None:
            return "--"
        return f"{low * 1e3:,.0f}-{high * 1e3:,.0f}" if high is not None else f">{low * 1e3:,.0f}"

    lines = [
        f"### Token budget of a step, 512 streams, {WAVES_S:.0f} s each",
        "",
        "| budget | output tok/s | prompt tok/s | req/s | ITL p50/p99 ms | TTFT p50/p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for part in budgets:
        window = part["window"]
        itl, ttft = window["itl_s"], window["ttft_s"]
        lines.append(
            f"| {part['budget']} | {window['output_tokens_per_s']:,.0f} "
            f"| {window['prompt_tokens_per_s']:,.0f} | {window['requests_per_s']:.1f} "
            f"| {ms(itl, 'p50')}/{ms(itl, 'p99')} | {ms(ttft, 'p50')}/{ms(ttft, 'p99')} |"
        )
    return [*lines, ""]


def main() -> None:
    """Run both parts, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="ngram", help="ngram or ngram_gpu")
    parser.add_argument("flags", nargs="*")
    args = parser.parse_intermixed_args()
    result: dict[str, Any] = {}
    lines: list[str] = []

    def keep() -> None:
        args.out.write_text(json.dumps(result, indent=1))

    engine = Engine("gpu-default", args.model, args.python, tuple(args.flags))
    result["engine"] = engine.record | {"start_s": engine.start_s}
    try:
        result["batch_limits"] = batch_limits(engine)
    finally:
        result["stop_s"] = engine.stop()
        keep()
    lines += table("Batch limits, 512 streams", result["batch_limits"])
    lines += budget_table(result["batch_limits"]["budgets"])
    config = {"method": args.method, "num_speculative_tokens": 3}
    if args.method == "ngram":
        config |= {"prompt_lookup_max": 4, "prompt_lookup_min": 1}
    flags = ("--enforce-eager", "--speculative-config", json.dumps(config), *args.flags)
    engine = Engine("gpu-spec", args.model, args.python, flags)
    try:
        result["speculation"] = speculation(engine, 3) | {"start_s": engine.start_s}
    finally:
        result["speculation_stop_s"] = engine.stop()
        keep()
    lines += table(f"Speculation ({args.method}), 32 greedy streams", result["speculation"])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
