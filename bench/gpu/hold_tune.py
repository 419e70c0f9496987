"""Compares forecast, hold and tune on one real GPU with measurements. Writes JSON.

usage: python -m bench.gpu.hold_tune MODEL --python PATH --out RESULT.json [--parts PARTS]
           [-- vllm flags]
       python -m bench.gpu.hold_tune sim --out RESULT.json      (the same on the simulated engine)

MODEL is a folder with the configuration of Llama-3.1-8B and random weights. The PARTS are below,
with their duration on an H200 without the start of the engine (90 to 130 s). Rates are requests per
second.

    low       default options below the knee (20 s)
    overload  default options, and one static pair of limits, at a rate of 80 (60 s)
    forecast  three forecasts; needs ``low`` and ``overload`` (5 s)
    hold      rates of 35, 80, 35, and 35 alone, under hold (85 s)
    grid      default options, hold and the best static pair of a grid, all at rates of 35, 80, 35;
              first each pair of the grid at a rate of 80 (at most --grid-max)
    tune      ``llmtop tune`` at a rate of 80 (at most --tune-max)

Goodput is the number of requests per second with a TTFT of at most 1 s and a TPOT of at most 50 ms,
measured by the client. A refused request does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.commands import LLMTOP
from bench.nearest_rank import nearest_rank

SLO = "ttft=1s,tpot=50ms"
TTFT_S, TPOT_S = 1.0, 0.050
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "112..144")
HIGH, LOW = 80, 35
FILLED_S = 5.0  # after a step in load, until the batch is full; a forecast is for a full batch
STATIC = ("max_num_seqs=128", "max_queued_requests=16")
COMMON = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--no-enable-prefix-caching"),
)


def llmtop(*args: str, may_fail: bool = False) -> Any:
    """Run a command. Returns its JSON. Exits when it fails, unless ``may_fail``."""
    done = subprocess.run([*LLMTOP, *args], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        sys.exit(f"llmtop {' '.join(args)} failed")
    return json.loads(done.stdout or "null")


def quantile(values: list[float], share: float) -> float | None:
    """The quantile by nearest rank; None without values."""
    return nearest_rank(values, share) if values else None


def outcome(rows: list[dict[str, Any]], begin: float, end: float) -> dict[str, Any]:
    """The client's results for the requests that were due between two moments of the load."""
    due = [row for row in rows if begin <= row["intended_s"] < end]
    done = [row for row in due if row["fate"] == "ok"]
    good = [
        row
        for row in done
        if row["ttft_s"] is not None
        and row["ttft_s"] <= TTFT_S
        and (row["tpot_s"] is None or row["tpot_s"] <= TPOT_S)
    ]
    fates = {fate: sum(r["fate"] == fate for r in due) for fate in ("refused", "failed", "cut")}
    seconds = end - begin
    return {
        "asked": len(due),
        **fates,
        "good_per_s": len(good) / seconds,
        "late_share_of_accepted": 1 - len(good) / len(done) if done else None,
        "output_tokens_per_s": sum(row["output_tokens"] for row in done) / seconds,
        "ttft_p50": quantile([r["ttft_s"] for r in done if r["ttft_s"] is not None], 0.5),
        "ttft_p95": quantile([r["ttft_s"] for r in done if r["ttft_s"] is not None], 0.95),
        "tpot_p50": quantile([r["tpot_s"] for r in done if r["tpot_s"] is not None], 0.5),
        "tpot_p95": quantile([r["tpot_s"] for r in done if r["tpot_s"] is not None], 0.95),
    }


def load(name: str, phases: list[tuple[float, float]], seed: int | None = None) -> dict[str, Any]:
    """Send a load. Returns the outcome of each phase and of all.

    phases: (requests per second, seconds). seed: of the arrivals and lengths, None for a new one.
    """
    seed = int.from_bytes(os.urandom(3)) if seed is None else seed
    shape = ", ".join(f"hold {rate:g} for {seconds:g}s" for rate, seconds in phases)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.jsonl"
        result = llmtop(
            *("load", name, "--shape", shape, "--open", *LENGTHS, "--no-calibrate", "--json"),
            *("--seed", str(seed), "--save", str(path)),
            may_fail=True,
        )
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    first = min(row["intended_s"] for row in rows)
    found, at = [], first
    for rate, seconds in phases:
        found.append({"rate": rate, **outcome(rows, at, at + seconds)})
        if seconds > 2 * FILLED_S:  # an empty batch first admits more requests than it can serve
            found[-1]["filled"] = outcome(rows, at + FILLED_S, at + seconds)
        at += seconds
    client = result["client"]["verdict"] if result else None
    return {"phases": found, "all": outcome(rows, first, at), "client": client}


@contextlib.contextmanager
def held(name: str, into: dict[str, Any]) -> Iterator[None]:
    """Run ``llmtop hold`` during the block. Its JSON result is added to ``into``."""
    holder = subprocess.Popen(
        [*LLMTOP, "hold", name, "--slo", SLO, "--yes", "--json"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(2.0)
    try:
        yield
    finally:
        holder.terminate()
        output = holder.communicate(timeout=30)[0]
        into.update(json.loads(output))


def moving_and_low(name: str, keep: Callable[[str, Any], None]) -> None:
    """Run hold under a changing load, and below the knee."""
    account: dict[str, Any] = {}
    with held(name, account):
        keep("hold_moving", load(name, [(LOW, 12), (HIGH, 30), (LOW, 12)]))
    keep("hold_moving_account", account)
    account = {}
    with held(name, account):
        keep("hold_below_the_knee", load(name, [(LOW, 15)]))
    keep("hold_below_the_knee_account", account)


def grid(
    name: str,
    pairs: list[tuple[int, int]],
    seconds: float,
    most_s: float,
    keep: Callable[[str, Any], None],
) -> None:
    """Measure default options, hold, and the best static pair under the same changing load.

    Each pair is first measured under constant overload. seconds: of that load. most_s: for all
    measurements; pairs for which no time is left are not measured.
    """
    begun, seed = time.monotonic(), int.from_bytes(os.urandom(3))
    moving: list[tuple[float, float]] = [(LOW, 6.0), (HIGH, 12.0), (LOW, 6.0)]
    keep("grid_moving_default", load(name, moving, seed))
    account: dict[str, Any] = {}
    with held(name, account):
        keep("grid_moving_hold", load(name, moving, seed))
    keep("grid_moving_hold_account", account)
    last_s = sum(length for _, length in moving) + 8.0  # the best pair under the moving load
    found: list[dict[str, Any]] = []
    took = seconds + 8.0
    for batch, queue in pairs:
        at = time.monotonic()
        if at + took + last_s > begun + most_s:
            break
        set_pair(name, batch, queue)
        result = load(name, [(HIGH, seconds)], seed + 1)["all"]
        found.append({"batch": batch, "queue": queue, **result})
        took = time.monotonic() - at
        keep("grid_pairs", {"asked_for": len(pairs), "seconds_each": seconds, "measured": found})
    best = max(found, key=lambda one: one["good_per_s"])
    set_pair(name, best["batch"], best["queue"])
    result = load(name, moving, seed)
    keep("grid_moving_best", {"batch": best["batch"], "queue": best["queue"], **result})
    set_pair(name, _launch(name), 0)


def set_pair(name: str, batch: int, queue: int) -> None:
    """Set a batch limit and a queue limit (0 for none)."""
    llmtop("set", name, f"max_num_seqs={batch}", f"max_queued_requests={queue}", "--json")


def forecast(name: str, *args: str) -> Any:
    """A forecast without the knee."""
    return llmtop("forecast", name, *args, "--slo", SLO, "--no-knee", "--json", may_fail=True)


def main() -> None:
    """Start the engine, run the parts, and stop it."""
    argv, flags = sys.argv[1:], []
    if "--" in argv:
        place = argv.index("--")
        argv, flags = argv[:place], argv[place + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--python", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default="low,overload,forecast,hold")
    parser.add_argument("--grid-batches", default="128,192,256,96")
    parser.add_argument("--grid-queues", default="16,8,32")
    parser.add_argument("--grid-seconds", type=float, default=8.0)
    parser.add_argument("--grid-max", type=float, default=250.0)
    parser.add_argument("--tune-run-seconds", type=float, default=8.0)
    parser.add_argument("--tune-max", type=float, default=285.0)
    given = parser.parse_args(argv)
    parts = given.parts.split(",")
    begun = time.monotonic()
    name = "hold-bench"
    simulated = given.model == "sim"
    kind = ("sim",) if simulated else ("vllm", given.model, "--python", given.python)
    common = ("--startup-s", "0.2", "--no-enable-prefix-caching") if simulated else COMMON
    llmtop("run", *kind, "--name", name, "--detach", "--json", "--", *common, *flags)
    result: dict[str, Any] = {"started_s": time.monotonic() - begun, "slo": SLO, "flags": flags}

    def keep(key: str, value: Any) -> None:
        result[key] = value
        result["seconds"] = time.monotonic() - begun
        given.out.write_text(json.dumps(result, indent=1))
        print(f"{time.monotonic() - begun:5.0f} s  {key}", flush=True)

    try:
        load(name, [(LOW, 10)])  # the engine compiles kernels at the first step of each kind
        if "low" in parts:
            keep("below_the_knee_default", load(name, [(LOW, 15)]))
        if "overload" in parts:
            keep("overload_default", load(name, [(HIGH, 18)]))
        if "forecast" in parts:
            time.sleep(1.0)
            rate = ("--rate", str(HIGH), *LENGTHS, "--listen", "0s")
            low = ("--rate", str(LOW), *LENGTHS, "--listen", "0s")
            keep("forecast_low", forecast(name, *low))
            keep("forecast_default", forecast(name, *rate))
            keep("forecast_static", forecast(name, *STATIC, *rate))
        if "overload" in parts:
            llmtop("set", name, *STATIC, "--json")
            keep("overload_static", load(name, [(HIGH, 18)]))
            set_pair(name, _launch(name), 0)
        if "hold" in parts:
            moving_and_low(name, keep)
        if "grid" in parts:
            batches, queues = (
                [int(word) for word in text.split(",")]
                for text in (given.grid_batches, given.grid_queues)
            )
            pairs = [(batch, queue) for queue in queues for batch in batches]
            grid(name, pairs, given.grid_seconds, given.grid_max, keep)
        if "tune" in parts:
            tune = ("tune", name, "--slo", SLO, "--rate", str(HIGH), *LENGTHS)
            bounds = (f"--run-seconds={given.tune_run_seconds}s", f"--max-time={given.tune_max}s")
            keep("tune", llmtop(*tune, *bounds, "--json", may_fail=True))
        options = llmtop("options", name, "--json")
        keep("options_afterwards", options)
    finally:
        llmtop("stop", name, "--json", may_fail=True)


def _launch(name: str) -> int:
    """The batch limit that the engine was launched with."""
    options = llmtop("options", name, "--json")["options"]
    return next(int(one["launch"]) for one in options if one["name"] == "max_num_seqs")


if __name__ == "__main__":
    main()
