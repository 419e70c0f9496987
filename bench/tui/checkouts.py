"""Compares the cost of the screen in several checkouts of llmtop, in one run.

    git worktree add /tmp/before COMMIT
    python -m bench.tui.checkouts /tmp/before . [--rounds 3] [--seconds 20]

Each round measures every checkout in turn, idle and with about 70 streams. Each measurement starts
a new simulated engine, because the charts show the past of an engine. Printed are the median, the
lowest and the highest of the rounds. The CPU seconds until the first paint depend less on other
processes than the seconds do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.tui.cost import LLMTOP, MORE, NORMAL, engines
from bench.tui.terminal import Cost, measure

SCENES = {"idle": ("", 5.0), "load": (MORE, 15.0)}  # keys, seconds of warm-up
COLUMNS: Mapping[str, tuple[str, Callable[[Cost], float | None]]] = {
    "paint s": (".2f", lambda cost: cost.first_paint_s),
    "paint CPU s": (".2f", lambda cost: cost.start_cpu_s),
    "CPU %": (".2f", lambda cost: cost.cpu * 100),
    "MiB": (".1f", lambda cost: cost.rss_mib),
    "bytes/s": (",.0f", lambda cost: cost.bytes_per_s),
}


def cell(costs: list[Cost], form: str, read: Callable[[Cost], float | None]) -> str:
    """``median (lowest .. highest)``; ``--`` without values."""
    values = [value for cost in costs if (value := read(cost)) is not None]
    if not values:
        return "--"
    middle, *ends = (
        format(value, form) for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({' .. '.join(ends)})"


def main() -> None:
    """Measure and print one table for each scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    given = parser.parse_args()
    measured: dict[tuple[str, Path], list[Cost]] = {}
    for turn in range(given.rounds):
        order = given.checkouts[:: -1 if turn % 2 else 1]
        for scene, checkout in itertools.product(given.scenes, order):
            keys, warm_up_s = SCENES[scene]
            with engines(1) as ((url,), environ):
                cost = measure(
                    [LLMTOP[0], "-P", *LLMTOP[1:], "attach", url], *NORMAL, given.seconds,
                    environ={**environ, "PYTHONPATH": str(checkout.resolve())},
                    keys=keys, warm_up_s=warm_up_s,
                )  # fmt: skip
            measured.setdefault((scene, checkout), []).append(cost)
            print(turn, checkout, scene, cost, file=sys.stderr, flush=True)
    for scene in given.scenes:
        title = f"{given.rounds} rounds of {given.seconds:g} s: median (lowest .. highest)"
        print(f"\n{scene}, {title}")
        print(f"{'':20}" + "".join(name.rjust(26) for name in COLUMNS))
        for checkout in given.checkouts:
            costs = measured[scene, checkout]
            cells = [cell(costs, *how).rjust(26) for how in COLUMNS.values()]
            print(f"{checkout.name or '.':20}" + "".join(cells))
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
