"""A good and a bad canary on two replicas of one GPU, under load; prints a JSON line for each step.

usage: python -m bench.gpu.canary MODEL --python PATH [--out FOLDER] [--flags "MORE VLLM FLAGS"]
       python -m bench.gpu.canary --engine sim

MODEL is a folder with the shape of a model; weights are random. llmtop starts two replicas of it,
loads both and gives one of them a new batch limit: first one that does no harm, which the other
replica then gets too, then a batch of one request, which is to be put back. No Prometheus: a canary
changes engines of this machine. What is in force is read from the engines' sockets, how many
requests run from their own /metrics.

All of it ends within --limit seconds, whatever happens, and nothing is left running. Exit code 0:
every step came out as it should.
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
FULL = 0.7  # of the streams run at once: the rest are between two requests
FLAGS = {
    # The size of the KV cache is given: an engine that measures what is left counts the other one.
    "vllm": (
        *("--load-format", "dummy", "--max-model-len", "2048", "--enforce-eager"),
        *("--gpu-memory-utilization", "0.4", "--kv-cache-memory-bytes", str(16 << 30)),
        *("--no-enable-prefix-caching", "--max-num-seqs", str(CAP)),
    ),
    "sim": ("--startup-s", "0.2", "--max-num-seqs", str(CAP)),
}
LENGTHS = ("--prompt-tokens", "96..160", "--output-tokens", "24..40")


class Bench:
    """Two replicas, their loads, and what becomes of them. out: where output is kept."""

    def __init__(self, given: argparse.Namespace, out: Path) -> None:
        self._given, self._out = given, out
        self._began = time.monotonic()
        self._children: list[subprocess.Popen[str]] = []
        self._urls: dict[str, str] = {}
        self.sound = True

    def step(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Make one step and print how it came out. ``ok`` is in what it returns."""
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
        """Both replicas; at once, unless one is to follow the other."""
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
        """A closed loop on each replica, until both are busy."""
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
        time.sleep(given.warm_s)  # the first steps of each kind are compiled
        return {"ok": busy, "running": self.running()}

    def canary(self, value: int) -> dict[str, Any]:
        """Give a replica a batch limit by ``llmtop set --canary 1``; what was said, and when."""
        given = self._given
        words = [
            *("set", "name=canary-*", f"max_num_seqs={value}", "--canary", "1"),
            *("--watch", f"{given.watch_s:g}s", "--slo", given.slo, "--json"),
        ]
        begun = time.monotonic()
        said: list[dict[str, Any]] = []
        changed_at = reverted_at = None
        child = self._begin(*words)
        assert child.stdout is not None and child.stderr is not None
        for line in child.stderr:
            at = self._since(begun)
            said.append({"at_s": at, "said": line.strip()})
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
            "said": said,
        }

    def good(self) -> dict[str, Any]:
        """A limit above what is asked for: all get it."""
        found = self.canary(GOOD)
        followed = found["changed"] == list(NAMES) and found["limits_now"] == [GOOD] * len(NAMES)
        return {"ok": found["exit"] == 0 and followed, **found}

    def bad(self) -> dict[str, Any]:
        """A batch of one request: it is put back, and the other replica keeps what it had."""
        found = self.canary(BAD)
        within = found["reverted_after_s"]
        back = found["limits_now"] == [GOOD] * len(NAMES)
        in_time = within is not None and within <= REVERTED_WITHIN_S
        ok = found["exit"] == 1 and found["canaries"] == found["reverted"] and back and in_time
        return {"ok": ok, "bound_s": REVERTED_WITHIN_S, **found}

    def recovery(self) -> dict[str, Any]:
        """Both replicas are busy again."""
        return {"ok": self._busy(60.0), "running": self.running()}

    def end(self) -> dict[str, Any]:
        """End what still runs, then the replicas; no request may have failed."""
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
                told = json.loads((self._out / f"load-{name}.json").read_text())["requests"]
                counts[name] = {key: told[key] for key in ("ok", "failed")}
        stopped = self._stop()
        served = len(counts) == len(NAMES)
        ok = stopped and served and not any(one["failed"] for one in counts.values())
        return {"ok": ok, "requests": counts, "stopped": stopped}

    def running(self) -> list[int]:
        """Requests that run on each replica, as it says itself."""
        found = []
        for name in NAMES:
            with urllib.request.urlopen(f"{self._urls[name]}/metrics", timeout=20) as answer:
                text = answer.read().decode()
            values = re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", text, re.MULTILINE)
            found.append(int(sum(float(value) for value in values)))
        return found

    def limits(self) -> list[int]:
        """The batch limit that is in force on each replica."""
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
        """A command that is ended with the bench, whatever happens."""
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
    """All steps within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--engine", choices=tuple(FLAGS), default="vllm")
    parser.add_argument("--python", default="")
    parser.add_argument("--out", type=Path, help="folder for the results of the loads")
    parser.add_argument("--streams", type=int, default=32, help="on each replica")
    parser.add_argument("--slo", default="ttft=1s")
    parser.add_argument("--watch-s", type=float, default=20.0)
    parser.add_argument("--warm-s", type=float, default=5.0)
    parser.add_argument("--limit", type=int, default=215, help="seconds for all of it")
    parser.add_argument("--one-by-one", action="store_true", help="not both starts at once")
    parser.add_argument("--flags", default="", help="more flags of the engine, in one word")
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
