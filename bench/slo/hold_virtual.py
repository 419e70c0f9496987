"""The controller of ``hold`` in virtual time, against the best static limits and the default.

    python -m bench.slo.hold_virtual [--steps chat_256.csv.gz] [--seeds 5] [--out RESULT.json]

The best static limits are searched afterwards: a grid on the first seed, and its best few on every
seed. "pair" is batch and queue limit, "triple" has the token budget besides. With --steps the
engine is one whose steps are fitted to a recording; without, the simulated H200. About 10 minutes.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from msgspec import Struct, structs

from bench.forecast.recordings import read
from llmtop.forecast.fit import fit
from llmtop.forecast.load import FrontEnd, Settings
from llmtop.forecast.twin import Engine, Noise
from llmtop.slo_control.controller import Controller, Decision
from llmtop.slo_control.limits import LimitValues, Range
from tests.slo_control.virtual_hold import (
    H200,
    LONG,
    MET_S,
    MIXED,
    OWN,
    SHORT_ANSWERS,
    Phase,
    Played,
    Scene,
    moving,
    play,
)

BUDGETS = (8192, 2048)
BEST = 3  # of the grid, that are played with every seed
LATE = 0.05


class Case(Struct, frozen=True):
    """A scene, and the batch and queue limits of the grid. Without them no static limits."""

    scene: Scene
    batches: tuple[int, ...] = ()
    queues: tuple[int, ...] = (4, 16, 32)


CHAT_BATCHES = (96, 128, 192, 256, 384)
CASES = {
    "chat 30, 70, 30, 90, 40/s": Case(moving((30, 70, 30, 90, 40)), CHAT_BATCHES),
    "chat 35, 80, 35/s": Case(moving((35, 80, 35)), CHAT_BATCHES),
    "prompts of 4,000, 4, 14, 4, 20, 6/s": Case(
        moving((4, 14, 4, 20, 6), LONG), (16, 24, 32, 48, 64), (1, 2, 4)
    ),
    "a twelfth of 4,000, 15, 35, 15, 45, 20/s": Case(
        moving((15, 35, 15, 45, 20), MIXED), CHAT_BATCHES
    ),
    "answers of 16, 15, 60, 15, 80, 20/s": Case(
        moving((15, 60, 15, 80, 20), SHORT_ANSWERS), (16, 24, 32, 48), (4, 8, 16)
    ),
    "bursts of 3 s, 30 and 130/s": Case(
        Scene(tuple(Phase(r, s) for r, s in [(30, 7), (130, 3)] * 8)), CHAT_BATCHES
    ),
    "overload, 90/s": Case(Scene((Phase(90, 60),)), CHAT_BATCHES),
    "below the knee, chat 35/s": Case(Scene((Phase(35, 60),))),
    "below the knee, prompts of 4,000, 3/s": Case(Scene((Phase(3, 60, LONG),))),
    "below the knee, a twelfth of 4,000, 15/s": Case(Scene((Phase(15, 60, MIXED),))),
}


def vllm(steps: Path) -> Engine:
    """The engine of a recording."""
    found = fit(read(steps, OWN.kv_tokens)[:600], 30.5e-9)
    noise = Noise(found.residuals, found.prefill_residuals, found.holds)
    return Engine(found.model, FrontEnd(), noise)


def changes(decisions: Sequence[tuple[float, Decision]], own: LimitValues) -> list[float]:
    """When an option was changed."""
    before, found = own, []
    for at, decision in decisions:
        old, new = structs.astuple(before), structs.astuple(decision.held)
        found += [at for one, other in zip(old, new, strict=True) if one != other]
        before = decision.held
    return found


def met_after(found: Played) -> float:
    """Seconds after a step up from where on at most 5 % are late, in the worst phase."""
    worst = 0.0
    rates = [phase.rate for phase in found.scene.phases]
    for number in range(1, len(rates)):
        if rates[number] <= rates[number - 1]:
            continue
        after = 0.0
        while after < found.scene.phases[number].seconds - 1:
            if found.phase(number, after).late <= LATE:
                break
            after += 0.5
        worst = max(worst, after)
    return worst


def one(engine: Engine, job: tuple[str, int, Settings | None]) -> dict[str, Any]:
    """One run. Settings None: with the controller."""
    name, seed, settings = job
    scene, own = CASES[name].scene, LimitValues(OWN.batch_limit, 0, OWN.token_budget)
    controller = Controller(scene.goal, own, Range()) if settings is None else None
    found = play(engine, settings or OWN, scene, seed, controller)
    whole, times = found.whole, changes(found.decisions, own)
    longest = max((phase.seconds for phase in scene.phases), default=0.0)
    return {
        "good_per_s": whole.good_per_s,
        "late": whole.late,
        "refused": whole.refused / max(1, whole.came),
        "ttft_p95_s": whole.ttft_p95,
        "tpot_p95_s": whole.tpot_p95,
        "changes_per_s": len(times) / scene.seconds,
        # Of a load that has been steady for 5 s.
        "steady_changes_per_s": None
        if longest < 10
        else sum(
            begin + 5 <= at < begin + phase.seconds
            for begin, phase in zip(scene.begins, scene.phases, strict=True)
            for at in times
        )
        / sum(phase.seconds - 5 for phase in scene.phases),
        "met_after_s": met_after(found),
        "late_after_3_s": max(
            (
                found.phase(i, MET_S).late
                for i in range(1, len(scene.phases))
                if scene.phases[i].rate > scene.phases[i - 1].rate and scene.phases[i].seconds > 3
            ),
            default=0.0,
        ),
        "changes": len(times),
    }


def best(
    pool: ProcessPoolExecutor, engine: Engine, name: str, seeds: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """For each seed the best static limits, of pairs and of triples."""
    case, run = CASES[name], partial(one, engine)
    grid = [
        structs.replace(OWN, batch_limit=b, queue_limit=q, token_budget=t)
        for b, q, t in product(case.batches, case.queues, BUDGETS)
    ]
    first = list(pool.map(run, [(name, seeds[0], settings) for settings in grid]))
    ranked = sorted(range(len(grid)), key=lambda i: -first[i]["good_per_s"])
    pairs = [i for i in ranked if grid[i].token_budget == OWN.token_budget][:BEST]
    chosen = sorted({*pairs, *ranked[:BEST]})
    jobs = [(name, seed, grid[i]) for seed in seeds for i in chosen]
    rows = list(pool.map(run, jobs))
    found: dict[str, list[dict[str, Any]]] = {"pair": [], "triple": []}
    for seed in seeds:
        few = [
            {**row, "limits": [settings.batch_limit, settings.queue_limit, settings.token_budget]}
            for row, (_, of, settings) in zip(rows, jobs, strict=True)
            if of == seed
        ]
        by_good = sorted(few, key=lambda row: -row["good_per_s"])
        found["triple"].append(by_good[0])
        found["pair"].append(next(r for r in by_good if r["limits"][2] == OWN.token_budget))
    return found


def spread(values: Sequence[float]) -> str:
    """``0.98 to 1.02``."""
    return f"{min(values):.3f} to {max(values):.3f}"


def main() -> None:
    """Play all scenes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-static", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engine = vllm(given.steps) if given.steps else H200
    seeds, result = list(range(given.seeds)), dict[str, Any]()
    with ProcessPoolExecutor(2) as pool:
        for name in CASES:
            if given.only not in name:
                continue
            run = partial(one, engine)
            held = list(pool.map(run, [(name, seed, None) for seed in seeds]))
            default = list(pool.map(run, [(name, seed, OWN) for seed in seeds]))
            found = {"hold": held, "default": default}
            if CASES[name].batches and not given.no_static:
                found |= best(pool, engine, name, seeds)
            result[name] = found
            print(
                f"{name}: default {fmean(r['good_per_s'] for r in default):.1f} in time/s",
                flush=True,
            )
            for other in [key for key in found if key != "hold"]:
                ratios = [
                    mine["good_per_s"] / max(theirs["good_per_s"], 1e-9)
                    for mine, theirs in zip(held, found[other], strict=True)
                ]
                tpots = [
                    mine["tpot_p95_s"] / theirs["tpot_p95_s"]
                    for mine, theirs in zip(held, found[other], strict=True)
                ]
                print(f"  of {other}: goodput {spread(ratios)}, TPOT p95 {spread(tpots)}")
            for key in held[0]:
                if held[0][key] is not None:
                    print(f"  {key} {spread([row[key] for row in held])}")
            if given.out:
                given.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
