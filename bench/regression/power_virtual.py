"""How often `llmtop check` is right, in virtual time: the same engine, and one that is 5 % slower.

    python -m bench.regression.power_virtual [--checks 100] [--runs 8] [--seconds 15]

The scheduler of the forecast serves 16 streams on the simulated H200 in virtual time. Steps differ
by 5 % (standard deviation), and each run as a whole by ``--drift``, as on a machine that others
use. Runs are in turn and judged as the command judges them. A check takes (2 x runs + 2) x seconds
of a real clock, which must be below 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from msgspec import structs

from bench.regression.power import SLOWER
from llmtop.forecast.figures import Limits, figures
from llmtop.forecast.load import FrontEnd, Lengths, Load, Settings, steady_state
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, Noise, simulate
from llmtop.regression.budget import parse_budget
from llmtop.regression.judgement import judge_pairs, overall

# The simulated H200 with an 8B model: as a real one, to 5 % (docs/explanation/simulator.md).
MODEL = StepModel(4.93e-3, 1e-5, 3.05e-8, 2.32e-5, 3.73e-3)
SETTINGS = Settings(1024, 8192, 0, 919_792)
LOAD = Load("closed", 16, Lengths.span(128, 256), Lengths.span(64, 128))
STEP_SPREAD = 0.05
BUDGETS = ("tok_s=-3%,ttft_p95=+10%,tpot_p50=+5%", "tok_s=-2%,tpot_p50=+2%", "tok_s=-0.1%")
LIMIT_S = 300.0


def run(seconds: float, drift: float, job: tuple[int, float]) -> dict[str, float]:
    """One run. job: its seed, and the engine's speed."""
    seed, speed = job
    chance = random.Random(seed)
    factor = (1 + chance.gauss(0, drift)) / speed
    model = structs.replace(
        MODEL,
        **{name: getattr(MODEL, name) * factor
           for name in ("base_s", "request_s", "context_s", "token_s", "hidden_s")},
    )  # fmt: skip
    noise = tuple(max(0.5, chance.gauss(1, STEP_SPREAD)) for _ in range(997))
    engine = Engine(model, FrontEnd(0.0, 0.0, 6e-3), Noise(noise, noise))
    present = steady_state(LOAD, SETTINGS, chance)
    found = figures(
        simulate(engine, SETTINGS, LOAD, present, seed, horizon=seconds, warm=0.1), Limits()
    )
    return {
        "tok_s": found.output_tokens_per_s or 0.0,
        "ttft_p95": found.ttft_p95 or 0.0,
        "tpot_p50": found.tpot_p50 or 0.0,
    }


def checks(runs: list[dict[str, float]], many: int, each: int, budget: str) -> Counter[str]:
    """The verdicts. runs: of each check first the old engine's, then the new one's."""
    found: Counter[str] = Counter()
    budgets = parse_budget(budget)
    for number in range(many):
        mine = runs[number * 2 * each : (number + 1) * 2 * each]
        pairs = list(zip(mine[:each], mine[each:], strict=True))
        judged = [
            judge_pairs(one, [(a[one.measure], b[one.measure]) for a, b in pairs], len(budgets))
            for one in budgets
        ]
        found[str(overall(judged))] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checks", type=int, default=100, help="of each kind")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--drift", type=float, default=0.01)
    given = parser.parse_args()
    took = (2 * given.runs + 2) * given.seconds
    if took > LIMIT_S:
        parser.error(f"a check would take {took:g} s, more than {LIMIT_S:g} s")
    whole = given.checks * given.runs
    told: dict[str, object] = {**vars(given), "seconds_a_check": took}
    with ProcessPoolExecutor(2) as pool:
        for kind, speed in (("same", 1.0), ("slower", SLOWER)):
            speeds = ([1.0] * given.runs + [speed] * given.runs) * given.checks
            jobs = [(1_000_000 * (kind == "same") + place, one) for place, one in enumerate(speeds)]
            found = list(pool.map(partial(run, given.seconds, given.drift), jobs, chunksize=20))
            assert len(found) == 2 * whole
            told[kind] = {one: checks(found, given.checks, given.runs, one) for one in BUDGETS}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
