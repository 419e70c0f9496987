"""Measures the cost of llmtop's hooks in a running SGLang: on and off in turn under one load.

    python -m bench.inside.sglang_cost NAME --pid SCHEDULER [--streams 32] [--pairs 8]

SGLang must be started with bench/inside/toggle on PYTHONPATH and with
`--load-snapshot-publish-interval 1`. The order is off on, on off (ABBA). Each window measures the
tokens that the engine counted (`GET /v1/loads`) and the CPU time of the scheduler process. The CPU
time depends less on other processes than tokens per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from bench.inside.sglang_truth import ask
from llmtop.engines.state.state_directory import StateDirectory

ON, OFF = 16384, 16383  # values of max_prefill_tokens: the toggle removes the hooks at odd ones
SETTLE_S = 1.0


class Window(NamedTuple):
    """The result of one window. cpu_us: CPU microseconds of the scheduler process per token."""

    tokens_per_s: float
    cpu_us: float


class Engine:
    """The engine under test. pid: of its scheduler process."""

    def __init__(self, name: str, pid: int) -> None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        record = StateDirectory(Path(state) / "llmtop").load(name)
        assert record is not None and record.live_socket is not None, "no such engine"
        self.socket, self.url, self.pid = Path(record.live_socket), record.url, pid

    def tokens(self) -> float:
        """The tokens decoded so far."""
        with urllib.request.urlopen(f"{self.url}/v1/loads", timeout=60) as answer:
            document = json.load(answer)
        return float(document["loads"][0]["decode_moments"][5])

    def cpu_s(self) -> float:
        """The CPU seconds of the scheduler process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def switch(self, value: int) -> None:
        """Switch the hooks on or off. value: ``ON`` or ``OFF``."""
        changes = {"max_prefill_tokens": value}
        (done,) = ask(self.socket, op="set", changes=changes, by="bench", wait_s=10)["changes"]
        assert done["outcome"] == "applied", done

    def window(self, value: int, seconds: float) -> Window:
        """Measure one window. value: ``ON`` or ``OFF``."""
        self.switch(value)
        time.sleep(SETTLE_S)
        tokens, cpu, begun = self.tokens(), self.cpu_s(), time.monotonic()
        time.sleep(seconds)
        made, took = self.tokens() - tokens, time.monotonic() - begun
        return Window(made / took, (self.cpu_s() - cpu) / made * 1e6)


def interval(ratios: list[float]) -> str:
    """The mean of the ratios on / off as a change, with its 95 % interval by Student's t."""
    mean, n = statistics.mean(ratios), len(ratios)
    t = {6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}.get(n, 2.4)
    half = t * statistics.stdev(ratios) / n**0.5
    return f"{mean - 1:+.2%} ({mean - half - 1:+.2%} to {mean + half - 1:+.2%}, n={n})"


def main() -> None:
    """Start the load, measure all pairs, and print both results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    engine = Engine(given.name, given.pid)
    load_s = given.pairs * 2 * (given.seconds + SETTLE_S + 2) + 60
    flags = ("-c", str(given.streams), "-d", f"{load_s:g}", "--prompt-tokens", "16")
    command = [sys.executable, "-m", "llmtop", "load", given.name, *flags, "--output-tokens", "200"]
    quiet = subprocess.DEVNULL
    load = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        time.sleep(30)
        speeds, costs = [], []
        for pair in range(given.pairs):
            order = (ON, OFF) if pair % 2 else (OFF, ON)
            found = {value: engine.window(value, given.seconds) for value in order}
            on, off = found[ON], found[OFF]
            speeds.append(on.tokens_per_s / off.tokens_per_s)
            costs.append(on.cpu_us / off.cpu_us)
            print(f"pair {pair}: on {on}, off {off}", flush=True)
    finally:
        load.terminate()
        load.wait()
    engine.switch(ON)
    print(f"output tokens/s, on against off: {interval(speeds)}")
    print(f"scheduler's CPU time a token:    {interval(costs)}")


if __name__ == "__main__":
    main()
