"""Forecast, hold and tune on one real GPU, against what is then measured; JSON out.

usage: python bench/gpu/hold_tune.py MODEL --python PATH --out RESULT.json [--tune] [-- vllm flags]
       python bench/gpu/hold_tune.py sim --out RESULT.json      (the same on the simulated engine)

MODEL is a folder with Llama-3.1-8B's shape and random weights. About 5 minutes, with --tune 8.
Goodput: requests within TTFT 1 s and TPOT 50 ms a second, as the client sees them, over all that
were asked for; refused ones are misses.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LLMTOP = (sys.executable, "-m", "llmtop")
SLO = "ttft=1s,tpot=50ms"
TTFT_S, TPOT_S = 1.0, 0.050
LENGTHS = ("--prompt-tokens", "448..576", "--output-tokens", "112..144")
HIGH, LOW = 80, 35
STATIC = ("max_num_seqs=128", "max_queued_requests=16")
COMMON = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--no-enable-prefix-caching"),
)


def llmtop(*args: str, may_fail: bool = False) -> Any:
    """Run a command that prints JSON."""
    done = subprocess.run([*LLMTOP, *args], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        sys.exit(f"llmtop {' '.join(args)} failed")
    return json.loads(done.stdout or "null")


def quantile(values: list[float], share: float) -> float | None:
    """By nearest rank."""
    return sorted(values)[max(0, int(share * len(values) + 0.999999) - 1)] if values else None


def outcome(rows: list[dict[str, Any]], begin: float, end: float) -> dict[str, Any]:
    """What the client saw of the requests that were due between two moments of the load."""
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


def load(name: str, phases: list[tuple[float, float]]) -> dict[str, Any]:
    """Requests a second, each for some seconds; the outcome of each phase, and of all."""
    shape = ", ".join(f"hold {rate:g} for {seconds:g}s" for rate, seconds in phases)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.jsonl"
        told = llmtop(
            *("load", name, "--shape", shape, "--open", *LENGTHS, "--no-calibrate", "--json"),
            *("--seed", str(int.from_bytes(os.urandom(3))), "--save", str(path)),
            may_fail=True,
        )
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    first = min(row["intended_s"] for row in rows)
    found, at = [], first
    for rate, seconds in phases:
        found.append({"rate": rate, **outcome(rows, at, at + seconds)})
        at += seconds
    client = told["client"]["verdict"] if told else None
    return {"phases": found, "all": outcome(rows, first, at), "client": client}


@contextlib.contextmanager
def held(name: str, into: dict[str, Any]) -> Iterator[None]:
    """While ``llmtop hold`` keeps the limits; its own account goes into ``into``."""
    holder = subprocess.Popen(
        [*LLMTOP, "hold", name, "--slo", SLO, "--yes", "--json"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(2.0)
    try:
        yield
    finally:
        holder.terminate()
        told = holder.communicate(timeout=30)[0]
        into.update(json.loads(told))


def forecast(name: str, *args: str) -> Any:
    """A forecast without the knee."""
    return llmtop("forecast", name, *args, "--slo", SLO, "--no-knee", "--json", may_fail=True)


def main() -> None:
    """Run all of it."""
    argv, flags = sys.argv[1:], []
    if "--" in argv:
        place = argv.index("--")
        argv, flags = argv[:place], argv[place + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--python", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tune", action="store_true")
    given = parser.parse_args(argv)
    begun = time.monotonic()
    name = "hold-bench"
    simulated = given.model == "sim"
    kind = ("sim",) if simulated else ("vllm", given.model, "--python", given.python)
    common = ("--startup-s", "0.2", "--no-enable-prefix-caching") if simulated else COMMON
    llmtop("run", *kind, "--name", name, "--detach", "--json", "--", *common, *flags)
    result: dict[str, Any] = {"started_s": time.monotonic() - begun, "slo": SLO, "flags": flags}

    def kept(key: str, value: Any) -> None:
        result[key] = value
        result["seconds"] = time.monotonic() - begun
        given.out.write_text(json.dumps(result, indent=1))
        print(f"{time.monotonic() - begun:5.0f} s  {key}", flush=True)

    try:
        load(name, [(LOW, 10)])  # the first steps of each kind are compiled
        kept("below_the_knee_default", load(name, [(LOW, 15)]))
        kept("overload_default", load(name, [(HIGH, 18)]))
        time.sleep(1.0)
        rate = ("--rate", str(HIGH), *LENGTHS, "--listen", "0s")
        low = ("--rate", str(LOW), *LENGTHS, "--listen", "0s")
        kept("forecast_low", forecast(name, *low))
        kept("forecast_default", forecast(name, *rate))
        kept("forecast_static", forecast(name, *STATIC, *rate))
        llmtop("set", name, *STATIC, "--json")
        kept("overload_static", load(name, [(HIGH, 18)]))
        llmtop("set", name, f"max_num_seqs={_launch(name)}", "max_queued_requests=0", "--json")
        account: dict[str, Any] = {}
        with held(name, account):
            kept("hold_moving", load(name, [(LOW, 12), (HIGH, 30), (LOW, 12)]))
        kept("hold_moving_account", account)
        account = {}
        with held(name, account):
            kept("hold_below_the_knee", load(name, [(LOW, 15)]))
        kept("hold_below_the_knee_account", account)
        if given.tune:
            tune = ("tune", name, "--slo", SLO, "--rate", str(HIGH), *LENGTHS)
            kept("tune", llmtop(*tune, "--run-seconds", "6s", "--json", may_fail=True))
        options = llmtop("options", name, "--json")
        kept("options_afterwards", options)
    finally:
        llmtop("stop", name, "--json", may_fail=True)


def _launch(name: str) -> int:
    """The batch limit that the engine was launched with."""
    options = llmtop("options", name, "--json")["options"]
    return next(int(one["launch"]) for one in options if one["name"] == "max_num_seqs")


if __name__ == "__main__":
    main()
