"""Tests which cause `llmtop why` names first on a real vLLM, for causes made on purpose.

usage: python -m bench.gpu.why_causes MODEL --python PATH --out RESULT.json [--cpu] [-- vllm flags]

Two engines run one after the other, the second with a small KV cache. Each scenario has its own
load and setting, and `why --json` runs repeatedly during it. The result has the causes that were
named first, and the seconds until the right one was. They count from the moment at which the load
was steady, or the KV cache was full. It takes eight minutes on an H200. MODEL has the configuration
of Llama-3.1-8B; weights are random. --cpu uses smaller scenarios for vLLM on a CPU.

No setting of the GPU is changed. To throttle it, a second process multiplies matrices on it, which
also brings it to its power limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.commands import LLMTOP, StepFailed, free_port, llmtop

WATCHED_S = 16.0
KV_FULL = 0.95
STEADY_WITHIN_S = 45.0  # timeout for a steady load
ALONE_S = 14.0  # seconds of steps on an unshared GPU, to compare the shared one with
HOGS = 4  # busy processes on the one core that the API server may use


class Scenario(NamedTuple):
    """A cause made on purpose.

    streams, prompt, output: of the load. cap: a batch limit that is set live. hog: the API server
    shares one core with busy processes. burn: another process uses the GPU. stands: what makes the
    load steady: most streams are in the engine ("asked"), all of them run ("running"), or the KV
    cache is full ("kv"). small: use the engine with the small KV cache. With a large full cache the
    main cause would be decode, because a step reads the whole cache.
    """

    cause: str
    streams: int
    prompt: str
    output: str
    cap: int | None = None
    hog: bool = False
    burn: bool = False
    stands: str = "asked"
    small: bool = False


GPU = (
    Scenario("batch_limit", 96, "448..576", "112..144", cap=16),
    Scenario("prefill", 64, "1800..2600", "16..32"),
    # Reading 500,000 tokens of KV cache takes 14 of the 20 ms of a step. With few streams the API
    # server has only 5,000 tokens/s. No prompt arrives for half a minute.
    Scenario("decode", 112, "4600..5000", "1400..1800", stands="running"),
    Scenario("front_end", 96, "32..64", "64..96", hog=True),
    Scenario("gpu_throttled", 32, "64..128", "400..600", burn=True, stands="running"),
    Scenario("kv_cache", 400, "800..1000", "500..700", stands="kv", small=True),
)
CPU = (
    Scenario("batch_limit", 16, "32..64", "32..64", cap=2),
    Scenario("prefill", 8, "400..600", "4..8"),
    Scenario("kv_cache", 32, "200..300", "150..200"),
    Scenario("front_end", 8, "16..32", "16..32", hog=True),
)
SMALL = ("--num-gpu-blocks-override", "12000")
FLAGS = {
    False: (
        *("--max-model-len", "8192", "--load-format", "dummy", "--max-num-seqs", "512"),
        *("--num-gpu-blocks-override", "48000", "--no-enable-prefix-caching"),
    ),
    True: (
        *("--max-model-len", "1024", "--max-num-seqs", "64", "--no-enable-prefix-caching"),
        *("--num-gpu-blocks-override", "150", "--block-size", "32"),
        *("--gpu-memory-utilization", "0.3"),
    ),
}


def spin() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass


@contextlib.contextmanager
def crowded(pid: int) -> Iterator[None]:
    """During the block, the process shares one core with busy processes."""
    every = os.sched_getaffinity(0)
    core = {min(every)}
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    hogs = [multiprocessing.Process(target=spin, daemon=True) for _ in range(HOGS)]
    for hog in hogs:
        hog.start()
    bind(threads, core)
    try:
        yield
    finally:
        for hog in hogs:
            hog.terminate()
        bind(threads, every)


BURN = """
import torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
b = a @ a
torch.cuda.synchronize()
print("started", flush=True)
while True:
    torch.matmul(a, a, out=b)
    torch.cuda.synchronize()
"""


@contextlib.contextmanager
def shared_gpu(python: str) -> Iterator[None]:
    """During the block, another process uses the GPU. Waits until it does."""
    time.sleep(ALONE_S)
    burner = subprocess.Popen([python, "-c", BURN], stdout=subprocess.PIPE)
    try:
        assert burner.stdout is not None
        if not burner.stdout.readline():
            raise StepFailed("the process that shares the GPU ended")
        yield
    finally:
        burner.kill()
        burner.wait()


def bind(threads: list[int], cores: set[int]) -> None:
    """Bind threads to cores. Threads that have ended are ignored."""
    for thread in threads:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, cores)


def kv_usage(url: str) -> float | None:
    """The share of the KV cache in use, from vLLM's metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.search(r"^vllm:kv_cache_usage_perc\{[^}]*\} (\S+)", text, re.MULTILINE)
    return float(found[1]) if found else None


def watch(name: str, url: str) -> list[dict[str, Any]]:
    """The answers of `why` for ``WATCHED_S`` seconds."""
    seen: list[dict[str, Any]] = []
    begun = time.monotonic()
    while time.monotonic() - begun < WATCHED_S:
        found = llmtop("why", name, "--json")
        seen.append(entry(round(time.monotonic() - begun, 2), found))
        seen[-1]["kv_usage"] = kv_usage(url)
        print(f"  {seen[-1]['at_s']:5.1f} s  {found['state']}", file=sys.stderr)
    return seen


def entry(at_s: float, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of an answer of `why --json` that are kept. at_s: its time, seconds."""
    first: dict[str, Any] = found["causes"][0] if found["causes"] else {}
    return {
        "at_s": at_s,
        "state": found["state"],
        "causes": [[one["cause"], one["share"]] for one in found["causes"]],
        "words": first.get("words"),
        "knob": first.get("knob"),
        "steps": found.get("steps"),
    }


def verdict(cause: str, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the right cause was named first, and when it was for the first time; None without
    answers."""
    named = [one["causes"][0][0] if one["causes"] else "nothing" for one in seen]
    right = [one["at_s"] for one, name in zip(seen, named, strict=True) if name == cause]
    full = [one["at_s"] for one in seen if (one.get("kv_usage") or 0.0) >= KV_FULL]
    return {
        "first_right_s": right[0] if right else None,
        "kv_full_from_s": full[0] if full else None,
        "share_of_looks_right": round(len(right) / len(seen), 2) if seen else None,
        "named_first": dict(Counter(named)),
    }


def stands(name: str, url: str, scenario: Scenario) -> bool:
    """Whether the load is steady, as the scenario needs it."""
    if scenario.stands == "kv":
        return (kv_usage(url) or 0.0) >= KV_FULL
    sample = llmtop("once", name, "--json", "--window", "0.5")
    running, waiting = sample["running"] or 0, sample["waiting"] or 0
    if scenario.stands == "running":
        return bool(running >= 0.9 * scenario.streams and not waiting)
    return bool(running + waiting >= 0.8 * scenario.streams)


def disturbed(scenario: Scenario, pid: int, python: str) -> contextlib.AbstractContextManager[None]:
    """The disturbance of the engine while it is watched."""
    if scenario.hog:
        return crowded(pid)
    return shared_gpu(python) if scenario.burn else contextlib.nullcontext()


def run(record: dict[str, Any], scenario: Scenario, cap: int, python: str) -> dict[str, Any]:
    """Run one scenario: set its option, send its load, and watch the answers of `why`."""
    name, url = record["name"], record["url"]
    print(f"{scenario.cause}", file=sys.stderr)
    llmtop("set", name, f"max_num_seqs={scenario.cap or cap}", "--json")
    load = subprocess.Popen(
        [*LLMTOP, "load", name, "-c", str(scenario.streams), "-d", "120", "--json",
         "--prompt-tokens", scenario.prompt, "--output-tokens", scenario.output],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < STEADY_WITHIN_S:
            if stands(name, url, scenario):
                break
        stood_s = time.monotonic() - begun
        with disturbed(scenario, int(record["pid"]), python):
            seen = watch(name, url)
    finally:
        ended(load)
    return {
        "cause": scenario.cause,
        "load_stood_s": round(stood_s, 1),
        **verdict(scenario.cause, seen),
        "looks": seen,
    }


def ended(load: subprocess.Popen[bytes]) -> None:
    """End a load. Its requests in flight are cut off after 30 s."""
    load.terminate()
    try:
        load.wait(30)
    except subprocess.TimeoutExpired:
        load.kill()
        load.wait()


def drained(name: str) -> None:
    """Wait until the engine has no request."""
    for _ in range(60):
        sample = llmtop("once", name, "--json", "--window", "0.5")
        if not sample["running"] and not sample["waiting"]:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--only", action="append", help="one of the causes")
    parser.add_argument("flags", nargs="*")
    given = parser.parse_args()
    begun = time.monotonic()
    results: list[dict[str, Any]] = []
    scenarios = CPU if given.cpu else GPU
    for small in (False, True):
        asked = [one for one in scenarios if one.small is small]
        asked = [one for one in asked if not given.only or one.cause in given.only]
        if asked:
            on_one_engine(given, asked, SMALL if small else (), begun, results)
    for one in results:
        print(line(one))


def on_one_engine(
    given: argparse.Namespace,
    scenarios: list[Scenario],
    more: tuple[str, ...],
    begun: float,
    results: list[dict[str, Any]],
) -> None:
    """Start an engine, run the scenarios on it, and stop it. Adds to ``results``."""
    name, started = "why-causes", time.monotonic()
    flags = (*FLAGS[given.cpu], *more, *given.flags)
    try:
        record = llmtop(
            *("run", "vllm", given.model, "--name", name, "--python", given.python),
            *("--port", str(free_port()), "--detach", "--json", "--", *flags),
        )
    except StepFailed as failure:
        sys.exit(f"the engine did not start: {failure}")
    ready_s = time.monotonic() - started
    try:
        for scenario in scenarios:
            try:
                results.append(run(record, scenario, 64 if given.cpu else 512, given.python))
                drained(name)
            except StepFailed as failure:  # the next scenarios still run
                results.append({"cause": scenario.cause, "failed": str(failure)})
            write(given.out, record["version"], ready_s, begun, results)
    finally:
        subprocess.run([*LLMTOP, "stop", name], check=False)


def write(path: Path, version: str, ready_s: float, begun: float, results: list[Any]) -> None:
    """Write the results so far."""
    document = {
        "version": version,
        "ready_s": round(ready_s, 1),
        "took_s": round(time.monotonic() - begun, 1),
        "scenarios": results,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def line(result: dict[str, Any]) -> str:
    """The result of a scenario in one line."""
    if "failed" in result:
        return f"{result['cause']:12}  failed: {result['failed']}"
    share, at = result["share_of_looks_right"], result["first_right_s"]
    when = "never right" if at is None else f"first right after {at} s"
    full = result["kv_full_from_s"]
    if result["cause"] == "kv_cache" and full is not None:
        when += f" (KV cache full after {full} s)"
    part = "no answer" if share is None else f"{share:.0%} of answers"
    return f"{result['cause']:12}  {when}, {part}, named {result['named_first']}"


if __name__ == "__main__":
    main()
