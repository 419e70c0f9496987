"""Verdicts beside a crowd: what ``saturate`` and ``compare`` still find, and what they must not.

Usage: python bench/loadgen/crowd.py [saturate] [compare] [same] [--seeds 10] [--alone]

The crowd is ``stress-ng --cpu 6 --switch 4 --fork 2 --pipe 2`` on all cores; the engine is the
simulated one, started and stopped here in a state folder of its own.

saturate: ``--slo ttft=1s,tpot=100ms --max 64`` holds at least 32 streams. compare: caps 8 and 64
at 32 streams, the winner in tok/s within 4 pairs. same: caps 64 and 63, which are the same to 32
streams: no measure may have a winner. The bars: 8 of 10, 9 of 10, and at most 8 % of comparisons.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
CROWD = ["stress-ng", "--quiet", "--cpu", "6", "--switch", "4", "--fork", "2", "--pipe", "2"]
LONGEST_S = 400
SATURATE = ("saturate", "--slo", "ttft=1s,tpot=100ms", "--max", "64")


def llmtop(folder: Path, *arguments: str) -> tuple[int, Any, str]:
    """Exit code, the JSON document and standard error of one command."""
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder),
        "PYTHONPATH": PATHS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "llmtop", *arguments, "--json"],
        env=environment, capture_output=True, text=True, timeout=LONGEST_S, cwd=folder,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@contextmanager
def engine(folder: Path, *flags: str) -> Iterator[str]:
    """A simulated engine."""
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    start = ("run", "sim", "--detach", "--port", port, "--name", "crowded")
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": PATHS}
    code = subprocess.run(
        [sys.executable, "-m", "llmtop", *start, "--json", "--", "--startup-s", "0", *flags],
        env=environment, capture_output=True, cwd=folder, timeout=LONGEST_S,
    )  # fmt: skip
    if code.returncode:
        raise SystemExit(code.stderr.decode())
    try:
        yield "crowded"
    finally:
        llmtop(folder, "stop", "crowded")


@contextmanager
def crowd(wanted: bool) -> Iterator[None]:
    """Other programs on the same cores, for no longer than one command may take."""
    if not wanted:
        yield
        return
    others = subprocess.Popen([*CROWD, "--timeout", f"{LONGEST_S}s"])
    try:
        yield
    finally:
        others.terminate()
        others.wait()


def saturate(folder: Path, name: str, busy: bool, seconds: str) -> bool:
    with crowd(busy):
        code, found, _ = llmtop(
            folder, *SATURATE[:1], name, *SATURATE[1:], "--level-seconds", seconds
        )
    main = next((one for one in found["answers"] if one["share"] == 0.95), None)
    level = (main or {}).get("streams") or 0
    spoilt = [one["streams"] for one in found["levels"] if one["client"]["verdict"] != "valid"]
    print(
        f"  exit {code}, complete {found['complete']}, not used {spoilt}: {found['summary']}",
        flush=True,
    )
    return level >= 32


def compare(folder: Path, name: str, busy: bool, seconds: str, b: int) -> dict[str, str]:
    a = 8 if b == 64 else 64  # caps of 63 and 64 are the same to 32 streams
    with crowd(busy):
        code, found, err = llmtop(
            folder, "compare", name, "-c", "32", "--pairs", "4", "--run-seconds", seconds,
            "--a", f"max_num_seqs={a}", "--b", f"max_num_seqs={b}",
        )  # fmt: skip
    if found is None:
        raise SystemExit(f"compare ended with {code}: {err.strip()}")
    verdicts = {one["measure"]: one["verdict"] for one in found["findings"]}
    first = found["findings"][0]
    print(
        f"  exit {code}, n={first['pairs']}, ratio {first['ratio']}"
        f" ({first['low']} .. {first['high']}), {verdicts}",
        flush=True,
    )
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description="verdicts beside a crowd")
    parser.add_argument("what", nargs="*", default=["saturate", "compare", "same"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--alone", action="store_true", help="without the crowd")
    parser.add_argument("--seconds", default="3", help="a level, or a run; their default is 8")
    given = parser.parse_args()
    busy, good = not given.alone, True
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        with engine(folder, "--max-num-seqs", "64") as name:
            for what in given.what:
                print(f"{what}, {'beside the crowd' if busy else 'alone'}:", flush=True)
                if what == "saturate":
                    n = sum(saturate(folder, name, busy, given.seconds) for _ in range(given.seeds))
                    print(f"at least 32 streams in {n} of {given.seeds}; the bar is 8 of 10")
                    good &= n >= 0.8 * given.seeds
                elif what == "compare":
                    n = sum(
                        compare(folder, name, busy, given.seconds, 64).get("output_tokens_per_s")
                        == "better"
                        for _ in range(given.seeds)
                    )
                    print(f"the winner in {n} of {given.seeds}; the bar is 9 of 10")
                    good &= n >= 0.9 * given.seeds
                else:
                    found = [
                        compare(folder, name, busy, given.seconds, 63) for _ in range(given.seeds)
                    ]
                    n = sum(any(v in ("better", "worse") for v in one.values()) for one in found)
                    print(f"a winner in {n} of {given.seeds} of the same; the bar is 8 %")
                    good &= n <= 0.08 * given.seeds
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
