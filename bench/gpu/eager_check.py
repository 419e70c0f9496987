"""Tests whether `llmtop check` detects eager mode against CUDA graphs on a real GPU. Writes JSON.

usage: python -m bench.gpu.eager_check MODEL --python PATH --out RESULT.json [--runs N]
       python -m bench.gpu.eager_check sim --out RESULT.json      (the same on the simulated engine)

The first engine runs with CUDA graphs. It gives the baseline and is then checked against it. The
verdict must be "as good". The second engine runs with ``--enforce-eager``. The verdict must be
"worse". MODEL has the configuration of Llama-3.1-8B; weights are random. It takes about five
minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.commands import LLMTOP

NAME = "eager-check"
LOAD = ("-c", "16", "-d", "5", "--prompt-tokens", "32..64", "--output-tokens", "48..80")
VLLM = (
    *("--load-format", "dummy", "--served-model-name", "llama-8b-dummy"),
    *("--max-model-len", "8192", "--no-enable-prefix-caching"),
)
SIMULATED = ("--startup-s", "0.2", "--no-enable-prefix-caching")


def llmtop(*args: str) -> tuple[int, Any]:
    """Run a command. Returns its exit code and the JSON that it printed."""
    done = subprocess.run(
        [*LLMTOP, args[0], "--json", *args[1:]], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout or "null")


def start(given: argparse.Namespace, *flags: str) -> None:
    """Start the engine. Exits when it does not start."""
    simulated = given.model == "sim"
    kind = ("sim",) if simulated else ("vllm", given.model, "--python", given.python)
    common = SIMULATED if simulated else VLLM
    code, _ = llmtop("run", *kind, "--name", NAME, "--detach", *("--", *common, *flags))
    if code:
        sys.exit("the engine did not start")


def check(baseline: Path, runs: int, *more: str) -> dict[str, Any]:
    """Run a check. Returns its answer, its exit code and its duration in seconds."""
    begun = time.monotonic()
    code, answer = llmtop(
        *("check", NAME, "--baseline", str(baseline), "--runs", str(runs), "--no-calibrate"), *more
    )
    return {"exit_code": code, "seconds": time.monotonic() - begun, "answer": answer}


def main() -> None:
    """Run both engines, one after the other, and check each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--no-again", action="store_true", help="skip the check of the same engine")
    given = parser.parse_args()
    begun = time.monotonic()
    result: dict[str, Any] = {}

    def keep(key: str, value: Any) -> None:
        result[key] = value
        given.out.write_text(json.dumps(result, indent=1))
        code = value["exit_code"] if isinstance(value, dict) else value
        print(f"{time.monotonic() - begun:5.0f} s  {key}: {code}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        first, baseline = Path(folder) / "load.json", Path(folder) / "baseline.json"
        try:
            start(given)
            keep("graphs_ready_s", time.monotonic() - begun)
            llmtop("load", NAME, *LOAD)  # the engine compiles at the first step of each kind
            first.write_text(json.dumps(llmtop("load", NAME, *LOAD)[1]))
            keep("baseline", check(first, given.runs, "--write-baseline", str(baseline)))
            if not given.no_again:
                keep("graphs_again", check(baseline, given.runs))
        finally:
            llmtop("stop", NAME)
        begun_eager = time.monotonic()
        try:
            start(given, *(() if given.model == "sim" else ("--enforce-eager",)))
            keep("eager_ready_s", time.monotonic() - begun_eager)
            keep("eager", check(baseline, given.runs))
        finally:
            llmtop("stop", NAME)


if __name__ == "__main__":
    main()
