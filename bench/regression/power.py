"""How often `llmtop check` is right: the same engine, and one that is 5 % slower.

Starts two simulated engines, records a baseline on the first, and checks the second against it in
turn with the first, again and again. Half of the checks are against an engine of the same speed,
half against one whose steps take 1 / 0.95 of the time.

    python -m bench.regression.power --checks 6 --runs 8 --seconds 5

Prints one JSON document: the verdicts, the ratio of each check, and how long a check took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SLOWER = 0.95


class Box:
    """An llmtop with state of its own."""

    def __init__(self, folder: Path) -> None:
        self._environ = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        for name in ("state", "config"):
            (folder / name).mkdir(mode=0o700)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "llmtop", *args],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> None:
    """Run the checks and print what they answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checks", type=int, default=6, help="of each kind")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=8)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"same": [], "slower": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        box = Box(folder)
        try:
            for engine, speed in (("old", 1.0), ("same", 1.0), ("slower", SLOWER)):
                box.run("run", "sim", "--detach", "--name", engine, "--", "--startup-s", "0",
                        "--speed", str(0.5 * speed))  # fmt: skip
            load = box.run("load", "old", "-c", str(given.streams), "-d", str(given.seconds),
                           "--workers", "1", "--json")  # fmt: skip
            baseline = folder / "load.json"
            baseline.write_text(load.stdout)
            for _ in range(given.checks):
                for kind, checks in found.items():
                    began = time.monotonic()
                    done = box.run("check", kind, "--baseline", str(baseline), "--against", "old",
                                   "--budget", "tok_s=-2%,tpot_p50=+2%", "--runs", str(given.runs),
                                   "--workers", "1", "--json")  # fmt: skip
                    told = json.loads(done.stdout)
                    checks.append(
                        {
                            "verdict": told["verdict"],
                            "ratios": {
                                one["measure"]: [one["low"], one["ratio"], one["high"]]
                                for one in told["measures"]
                            },
                            "seconds": round(time.monotonic() - began, 1),
                        }
                    )
                    print(kind, checks[-1], file=sys.stderr, flush=True)
        finally:
            box.run("stop", "--all", "--yes")
    print(json.dumps({"load_average": os.getloadavg(), **_summary(found), "checks": found}))


def _summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        kind: {
            "n": len(checks),
            **{
                verdict: sum(one["verdict"] == verdict for one in checks)
                for verdict in ("as good", "worse", "cannot tell")
            },
            "median_seconds": statistics.median(one["seconds"] for one in checks),
        }
        for kind, checks in found.items()
    }


if __name__ == "__main__":
    main()
