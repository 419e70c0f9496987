"""Runs a good and a bad canary on two replicas on one GPU, under load.

usage: python -m bench.gpu.canary MODEL --python PATH [--out FOLDER] [--flags "MORE VLLM FLAGS"]
       python -m bench.gpu.canary --engine sim

MODEL is a folder with the configuration of a model; weights are random. llmtop starts two replicas
and loads both. It then changes the batch limit of one replica. The first change is harmless, and
the other replica must get it too. The second change is a limit of one request, which must be
reverted. No Prometheus is needed, because a canary changes engines on this machine. The limits in
force are read from the engines' sockets, the numbers of running requests from their /metrics.

Each step prints one JSON line. The program ends within --limit seconds in all cases and leaves
nothing running. The exit code is 0 when every step had the expected result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from bench.commands import LLMTOP, StepFailed, free_port
from bench.gpu.ranked_engine import TimeIsUp

NAMES = ("canary-a", "canary-b")
CAP, GOOD, BAD = 256, 192, 1
REVERTED_WITHIN_S = 60.0
FULL = 0.7  # of the streams: a replica is busy when so many run; the rest are between two requests
FLAGS = {
    # The size of the KV cache is fixed. Otherwise an engine would count the memory of the other.
    "vllm": (
        *("--load-format", "dummy", "--max-model-len", "2048", "--enforce-eager"),
        *("--gpu-memory-utilization", "0.4", "--kv-cache-memory-bytes", str(16 << 30)),
        *("--no-enable-prefix-caching", "--max-num-seqs", str(CAP)),
    ),
    "sim": ("--startup-s", "0.2", "--max-num-seqs", str(CAP)),
}
LENGTHS = ("--prompt-tokens", "96..160", "--output-tokens", "24..40")


class Bench:
    """Two replicas and their loads. out: the folder for the output of the loads. sound: whether all
    steps so far had the expected result."""

    def __init__(self, given: argparse.Namespace, out: Path) -> None:
        self._given, self._out = given, out
        self._began = time.monotonic()
        self._children: list[subprocess.Popen[str]] = []
        self._urls: dict[str, str] = {}
        self.sound = True

    def step(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Run one step and print its result. make: returns the result, which has ``ok``."""
        begun = time.monotonic()
        found: dict[str, Any]
        try:
            found = make()
        except StepFailed as error:
            found = {"ok": False, "error": str(error)}
        self.sound = self.sound and found["ok"]
        took = {"at_s": self._since(self._began), "took_s": self._since(begun)}
        print(json.dumps({"step": name, **took, **found}), flush=True)

    def start(self) -> dict[str, Any]:
        """Start both replicas at once, or one after the other with --one-by-one."""
        given = self._given
        kind = ("sim",) if given.engine == "sim" else ("vllm", given.model)
        python = ("--python", given.python) if given.python else ()
        flags = (*FLAGS[given.engine], *shlex.split(given.flags))

        begun = time.monotonic()
        started: dict[str, float] = {}
        running: dict[str, subprocess.Popen[str]] = {}
        for name in NAMES:
            running[name] = self._begin(
                *("run", *kind, "--name", name, "--port", str(free_port()), *python),
                *("--detach", "--json", "--ready-timeout", "170s", "--", *flags),
            )
            if given.one_by_one:
                running[name].wait()
        for name, child in running.items():
            out, err = child.communicate()
            if child.returncode != 0:
                raise StepFailed(f"{name}: {err.strip()[-800:]}")
            self._urls[name] = json.loads(out)["url"]
            started[name] = self._since(begun)
        return {"ok": True, "ready_after_s": started}

    def load(self) -> dict[str, Any]:
        """Start a closed-loop load on each replica and wait until both are busy."""
        given = self._given
        shape = f"hold {given.streams} for {given.limit}s"
        for name in NAMES:
            words = ("load", name, "--shape", shape, *LENGTHS, "--no-calibrate", "--json")
            with (self._out / f"load-{name}.json").open("w") as out:
                child = subprocess.Popen(
                    [*LLMTOP, *words], stdout=out, stderr=subprocess.DEVNULL, text=True
                )
            self._children.append(child)
        busy = self._busy(60.0)
        time.sleep(given.warm_s)  # the engine compiles kernels at the first step of each kind
        return {"ok": busy, "running": self.running()}

    def canary(self, value: int) -> dict[str, Any]:
        """Change the batch limit with ``llmtop set --canary 1``. Returns its result and its output
        lines with their times."""
        given = self._given
        words = [
            *("set", "name=canary-*", f"max_num_seqs={value}", "--canary", "1"),
            *("--watch", f"{given.watch_s:g}s", "--slo", given.slo, "--json"),
        ]
        begun = time.monotonic()
        output: list[dict[str, Any]] = []
        changed_at = reverted_at = None
        child = self._begin(*words)
        assert child.stdout is not None and child.stderr is not None
        for line in child.stderr:
            at = self._since(begun)
            output.append({"at_s": at, "said": line.strip()})
            if changed_at is None and "->" in line:
                changed_at = at
            reverted_at = at if re.search(r": put back\b", line) else reverted_at
        document = json.loads(child.stdout.read() or "{}")
        child.wait()
        reverted = None
        if changed_at is not None and reverted_at is not None:
            reverted = round(reverted_at - changed_at, 2)
        return {
            "set": " ".join(words),
            "exit": child.returncode,
            "verdict": document.get("verdict"),
            "reason": document.get("reason"),
            "canaries": document.get("canaries"),
            "changed": document.get("changed"),
            "reverted": document.get("reverted"),
            "reverted_after_s": reverted,
            "limits_now": self.limits(),
            "running_now": self.running(),
            "said": output,
        }

    def good(self) -> dict[str, Any]:
        """Set a limit above the load: both replicas must get it."""
        found = self.canary(GOOD)
        followed = found["changed"] == list(NAMES) and found["limits_now"] == [GOOD] * len(NAMES)
        return {"ok": found["exit"] == 0 and followed, **found}

    def bad(self) -> dict[str, Any]:
        """Set a limit of one request: it must be reverted, and the other replica not changed."""
        found = self.canary(BAD)
        within = found["reverted_after_s"]
        back = found["limits_now"] == [GOOD] * len(NAMES)
        in_time = within is not None and within <= REVERTED_WITHIN_S
        ok = found["exit"] == 1 and found["canaries"] == found["reverted"] and back and in_time
        return {"ok": ok, "bound_s": REVERTED_WITHIN_S, **found}

    def recovery(self) -> dict[str, Any]:
        """Check that both replicas are busy again."""
        return {"ok": self._busy(60.0), "running": self.running()}

    def end(self) -> dict[str, Any]:
        """Stop the loads, then the replicas. No request may have failed."""
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        for child in self._children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        counts: dict[str, Any] = {}
        for name in NAMES:
            with contextlib.suppress(OSError, ValueError, KeyError):
                requests = json.loads((self._out / f"load-{name}.json").read_text())["requests"]
                counts[name] = {key: requests[key] for key in ("ok", "failed")}
        stopped = self._stop()
        served = len(counts) == len(NAMES)
        ok = stopped and served and not any(one["failed"] for one in counts.values())
        return {"ok": ok, "requests": counts, "stopped": stopped}

    def running(self) -> list[int]:
        """The running requests of each replica, from its own metrics."""
        found = []
        for name in NAMES:
            with urllib.request.urlopen(f"{self._urls[name]}/metrics", timeout=20) as answer:
                text = answer.read().decode()
            values = re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", text, re.MULTILINE)
            found.append(int(sum(float(value) for value in values)))
        return found

    def limits(self) -> list[int]:
        """The batch limit in force on each replica."""
        found = []
        for name in NAMES:
            options = self._llmtop("options", name, "--json")["options"]
            found += [one["value"] for one in options if one["name"] == "max_num_seqs"]
        return found

    def _busy(self, within_s: float) -> bool:
        wanted = FULL * self._given.streams
        begun = time.monotonic()
        while min(self.running()) < wanted:
            if time.monotonic() - begun > within_s:
                return False
            time.sleep(0.2)
        return True

    def _stop(self) -> bool:
        done = subprocess.run([*LLMTOP, "stop", *NAMES, "--json"], capture_output=True, check=False)
        return done.returncode == 0

    def _begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that ends with the benchmark in all cases."""
        child = subprocess.Popen(
            [*LLMTOP, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._children.append(child)
        return child

    def _llmtop(self, *words: str) -> Any:
        done = subprocess.run([*LLMTOP, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StepFailed(f"llmtop {shlex.join(words)}: {done.stderr.strip()[-800:]}")
        return json.loads(done.stdout)

    def _since(self, moment: float) -> float:
        return round(time.monotonic() - moment, 2)


def main() -> int:
    """Run all steps within the time limit. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--engine", choices=tuple(FLAGS), default="vllm")
    parser.add_argument("--python", default="")
    parser.add_argument("--out", type=Path, help="folder for the results of the loads")
    parser.add_argument("--streams", type=int, default=32, help="on each replica")
    parser.add_argument("--slo", default="ttft=1s")
    parser.add_argument("--watch-s", type=float, default=20.0)
    parser.add_argument("--warm-s", type=float, default=5.0)
    parser.add_argument("--limit", type=int, default=215, help="seconds for all steps")
    parser.add_argument("--one-by-one", action="store_true", help="start one replica after another")
    parser.add_argument("--flags", default="", help="more flags of the engine, as one argument")
    given = parser.parse_args()

    def up(_: int, __: FrameType | None) -> None:
        raise TimeIsUp

    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, up)
    signal.alarm(given.limit)
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        bench = Bench(given, out)
        try:
            bench.step("start", bench.start)
            if bench.sound:
                bench.step("load", bench.load)
                bench.step("good canary", bench.good)
                bench.step("bad canary", bench.bad)
                bench.step("recovery", bench.recovery)
        except TimeIsUp:
            bench.sound = False
            print(json.dumps({"step": "limit", "ok": False, "limit_s": given.limit}), flush=True)
        finally:
            signal.alarm(0)
            bench.step("end", bench.end)
    return int(not bench.sound)


if __name__ == "__main__":
    sys.exit(main())
