"""Verdicts beside a crowd: what ``saturate`` and ``compare`` still find, and what they must not.

Usage: python bench/loadgen/crowd.py [saturate|compare|same ...] [--runs 10] [--for SECONDS]

The crowd is ``stress-ng --cpu 6 --switch 4 --fork 2 --pipe 2`` on all cores; the engine is the
simulated one, started and stopped here in a state folder of its own.

saturate: ``--slo ttft=1s,tpot=100ms --max 64`` holds at least 32 streams. compare: caps 8 and 64
at 32 streams, the winner in tok/s within 4 pairs. same: caps 64 and 63, which are the same to 32
streams: no measure may have a winner. The bars: 8 of 10, 9 of 10, and at most 8 % of comparisons.

Each run prints one line of JSON as it ends, with every run of each pair. A summary of each kind
follows. ``--for`` divides the time between the kinds. A run that it cuts does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
CROWD = ["stress-ng", "--quiet", "--cpu", "6", "--switch", "4", "--fork", "2", "--pipe", "2"]
LONGEST_S = 900.0
END_S = 30.0  # an interrupted command puts the engine back as it was
SLO = ("--slo", "ttft=1s,tpot=100ms", "--max", "64")


def llmtop(
    folder: Path, *arguments: str, limit_s: float = LONGEST_S
) -> tuple[int | None, Any, str]:
    """Exit code, the JSON document and standard error of one command. The code is None if the
    command took longer than the limit."""
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder),
        "PYTHONPATH": PATHS,
    }
    command = subprocess.Popen(
        [sys.executable, "-m", "llmtop", *arguments, "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    try:
        out, err = command.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGINT)
        try:
            command.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            command.kill()
            command.communicate()
        return None, None, f"cut after {limit_s:.0f} s"
    return command.returncode, json.loads(out) if out else None, err


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
    others = subprocess.Popen([*CROWD, "--timeout", f"{LONGEST_S + END_S:.0f}s"])
    try:
        yield
    finally:
        others.terminate()
        others.wait()


Outcome = tuple[bool | None, dict[str, Any]]  # whether it was found (None: it does not count)


def saturate(folder: Path, name: str, limit_s: float, seconds: list[str]) -> Outcome:
    """Whether at least 32 streams held."""
    length = ["--level-seconds", *seconds] if seconds else []
    code, found, err = llmtop(folder, "saturate", name, *SLO, *length, limit_s=limit_s)
    if found is None:
        return (None if code is None else False), {"exit": code, "error": err.strip()}
    main = next((one for one in found["answers"] if one["share"] == 0.95), None)
    level = (main or {}).get("streams") or 0
    spoilt = [one["streams"] for one in found["levels"] if one["client"]["verdict"] != "valid"]
    facts = {"exit": code, "streams": level, "complete": found["complete"], "not_used": spoilt}
    return level >= 32, {**facts, "summary": found["summary"]}


def compare(folder: Path, name: str, limit_s: float, seconds: list[str], b: int) -> Outcome:
    """Whether a winner was found: in tok/s for caps that differ, else in any measure."""
    a = 8 if b == 64 else 64  # caps of 63 and 64 are the same to 32 streams
    length = ["--run-seconds", *seconds] if seconds else []
    code, found, err = llmtop(
        folder, "compare", name, "-c", "32", "--pairs", "4", *length,
        "--a", f"max_num_seqs={a}", "--b", f"max_num_seqs={b}", limit_s=limit_s,
    )  # fmt: skip
    if found is None:
        return (None if code is None else False), {"exit": code, "error": err.strip()}
    verdicts = {one["measure"]: one["verdict"] for one in found["findings"]}
    first = found["findings"][0]
    facts = {"exit": code, "n": first["pairs"], **{k: first[k] for k in ("ratio", "low", "high")}}
    facts |= {"verdicts": verdicts, "pairs": [pair_of(one) for one in found["pairs"]]}
    if b == 64:
        return verdicts["output_tokens_per_s"] == "better", facts
    return any(one in ("better", "worse") for one in verdicts.values()), facts


def pair_of(pair: dict[str, Any]) -> dict[str, Any]:
    """What tells why a pair is unlike the others."""
    runs = [
        {
            "tok_s": one["output_tokens_per_s"],
            "seconds": one["seconds"],
            "ttft_p50_s": one["ttft_s"]["p50"],
            "core_wait": one["client"]["run_delay"],
        }
        for one in pair["runs"]
    ]
    return {
        "order": pair["order"],
        "noise": pair["noise"],
        "counted": pair["counted"],
        "runs": runs,
    }


KINDS: dict[str, tuple[Callable[[Path, str, float, list[str]], Outcome], str, float]] = {
    "saturate": (saturate, "at least 32 streams", 0.8),
    "compare": (partial(compare, b=64), "the winner", 0.9),
    "same": (partial(compare, b=63), "a winner between equals", 0.08),
}


def series(what: str, folder: Path, name: str, given: argparse.Namespace, until: float) -> bool:
    """Run one kind until its number or its time is used up. Returns whether its bar is met."""
    one_run, words, bar = KINDS[what]
    outcomes: list[bool] = []
    for number in range(1, given.runs + 1):
        began = time.monotonic()
        if until - began <= END_S:
            break
        with crowd(not given.alone):
            limit_s = min(LONGEST_S, until - began - END_S)
            good, facts = one_run(folder, name, limit_s, given.seconds)
        if good is not None:
            outcomes.append(good)
        line = {"what": what, "run": number, "found": good, **facts}
        line |= {"took_s": round(time.monotonic() - began, 1), "load": os.getloadavg()[0]}
        print(json.dumps(line), flush=True)
    n, found = len(outcomes), sum(outcomes)
    met = n > 0 and (found <= bar * n if what == "same" else found >= bar * n)
    summary = {"what": what, "summary": f"{words} in {found} of {n}", "bar": bar, "met": met}
    print(json.dumps({**summary, "asked": given.runs}), flush=True)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="verdicts beside a crowd")
    parser.add_argument("what", nargs="*", choices=[*KINDS, []], default=[])
    parser.add_argument("--runs", type=int, default=10, help="of each kind")
    parser.add_argument(
        "--for", dest="total_s", type=float, default=float("inf"), metavar="SECONDS",
        help="end after this time, engine start included",
    )  # fmt: skip
    parser.add_argument("--alone", action="store_true", help="without the crowd")
    parser.add_argument(
        "--seconds", nargs=1, default=[], help="of a level or a run; default: the command's own"
    )
    given = parser.parse_args()
    end, kinds = time.monotonic() + given.total_s, given.what or list(KINDS)
    met = []
    with tempfile.TemporaryDirectory() as at, engine(Path(at), "--max-num-seqs", "64") as name:
        for place, what in enumerate(kinds):
            now = time.monotonic()
            share = (end - now) / (len(kinds) - place)
            met.append(series(what, Path(at), name, given, now + share))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
