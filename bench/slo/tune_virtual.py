"""``tune`` in virtual time against an exhaustive grid.

    python -m bench.slo.tune_virtual [--traces TRACES] [--seeds 10] [--judge-runs 24]

Each run is one load of 8 s at an idle engine, as ``tune`` measures it. The engine is the simulated
H200; with --traces, one whose steps are fitted to a recording of a real H200. Tune knows of it what
its steps of the first run show. The grid measures every candidate, and each of the best ten
again and again. Settings are judged by many runs: near a limit some runs serve far less than the
others.
"""

import argparse
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

from msgspec import Struct, structs

from bench.forecast.recordings import read
from llmtop.engines.core.steps import Step
from llmtop.forecast.figures import Limits, figures
from llmtop.forecast.fit import NotFitted, fit
from llmtop.forecast.load import FrontEnd, Lengths, Load, Present
from llmtop.forecast.load import Settings as EngineSettings
from llmtop.forecast.scheduler import Plan
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, Noise, Twin, simulate
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.tune_candidates import choose, warm_of
from llmtop.slo_control.candidates import Settings, grid
from llmtop.slo_control.search import Measured, Search

ROLES = ("batch_limit", "queue_limit", "token_budget")
RUN_S = 8.0
JUDGED = 2_000_000  # seeds of the arrivals under which settings are compared
RESTART_S = (55.0, 280.0)  # of vLLM on an H200, measured
PROMPT, OUTPUT = Lengths.span(448, 576), Lengths.span(112, 144)
KV_TOKENS = 919_792
SIMULATED = StepModel(4.93e-3, 1e-5, 3.05e-8, 2.32e-5, 3.73e-3)
LOADS = {  # name: (load, SLO)
    "80/s, ttft=1s,tpot=50ms": (Load("open", 80, PROMPT, OUTPUT), Limits(1.0, 0.05)),
    "100/s, ttft=1s,tpot=50ms": (Load("open", 100, PROMPT, OUTPUT), Limits(1.0, 0.05)),
    "70/s, ttft=500ms,tpot=30ms": (Load("open", 70, PROMPT, OUTPUT), Limits(0.5, 0.03)),
    "30/s, ttft=1s,tpot=50ms": (Load("open", 30, PROMPT, OUTPUT), Limits(1.0, 0.05)),
    "40/s, ttft=20ms": (Load("open", 40, PROMPT, OUTPUT), Limits(0.02, None)),
}
SET_BEFORE = {  # name: (load, its limits, own settings)
    f"{name}, set already": (*LOADS[name], dict(zip(ROLES, own, strict=True)))
    for name, own in {
        "80/s, ttft=1s,tpot=50ms": (256, 16, 2048),
        "100/s, ttft=1s,tpot=50ms": (128, 8, 2048),
        "70/s, ttft=500ms,tpot=30ms": (128, 8, 2048),
    }.items()
}
"""Here own settings are among the best already: there is nothing to gain, and pairs must say so."""


class World(Struct):
    """A true engine. seed: of the noise of the next run, which is always another one."""

    engine: Engine
    own: dict[str, int]
    load: Load
    limits: Limits
    seed: int = 0

    def measured(self, settings: Settings, arrivals: int) -> Measured:
        """arrivals: seed of the arrivals and lengths that the run meets."""
        self.seed += 1
        wanted = structs.replace(EngineSettings(512, 8192, 0, KV_TOKENS), **settings)
        run = simulate(
            self.engine, wanted, self.load, Present(), arrivals,
            horizon=RUN_S, warm=warm_of(RUN_S) / RUN_S, noise=self.seed,
        )  # fmt: skip
        good = figures(run, self.limits).goodput_per_s or 0.0
        came = sum(run.begin <= r.arrived < run.horizon for r in run.requests)
        share = good * (run.horizon - run.begin) / came if came else 0.0
        return Measured(good, share, came)

    def steps(self) -> list[Step]:
        """Those of a run with own settings."""
        settings = structs.replace(EngineSettings(512, 8192, 0, KV_TOKENS), **self.own)
        twin = Twin(self.engine, settings, Present(), self.load, 77_000 + self.seed)
        found = Stamped(twin, self.engine.model)
        twin.stop_sending = RUN_S
        twin.advance(4 * RUN_S)
        return found.steps[1:]


class Stamped:
    """The steps of a twin as an engine reports them."""

    def __init__(self, twin: Twin, model: StepModel) -> None:
        self.steps: list[Step] = []
        self._twin, self._model, self._last = twin, model, 0.0
        twin.on_step = self._take

    def _take(self, at: float, plan: Plan) -> None:
        scheduler, model = self._twin.scheduler, self._model
        hold = model.hold(plan.requests, plan.tokens, plan.prefill_tokens)
        self.steps.append(
            Step(
                seq=len(self.steps) + 1, end=at, duration_s=max(at - self._last, 1e-6),
                requests=plan.requests, prefills=plan.requests - plan.decoding,
                prefill_tokens=plan.prefill_tokens, decode_tokens=plan.decoding,
                output_tokens=plan.decoding + len(plan.firsts), draft_tokens=0, accepted_tokens=0,
                running=scheduler.running, waiting=len(scheduler.waiting), kv_free_blocks=None,
                preempted=0, context_tokens=plan.context, schedule_s=None, update_s=None,
                launch_s=hold if model.overlapped else None,
                host_gap_s=0.0 if model.overlapped else None, idle_s=0.0, cached_tokens=0,
                refused=0,
            )
        )  # fmt: skip
        self._last = at


def tuned(world: World, front_end: FrontEnd) -> tuple[str, Settings, int, int]:
    """(the verdict, the settings, runs, candidates of the grid)."""
    begun = world.seed
    first = world.measured(world.own, begun)
    model = world.engine.model
    try:
        fitted = fit(world.steps(), model.context_s, launches=model.overlapped)
    except NotFitted:
        known = None
    else:
        known = FittedEngine(
            name="engine", simulated=True, fit=fitted,
            front_end=front_end, options=(),
            settings=structs.replace(EngineSettings(512, 8192, 0, KV_TOKENS), **world.own),
            observed=None, no_load=None, table=None, running=0, waiting=0, ranks=1, measured={},
        )  # fmt: skip
    chosen = choose(world.own, {}, known, world.limits, world.load, RUN_S)
    search = Search(world.own, chosen.settings)
    search.next()
    search.take(first)
    runs = 1
    while (index := search.next()) is not None:
        runs += 1
        search.take(world.measured(search.candidates[index], begun + search.round))
    assert search.result is not None
    return search.result.verdict.value, search.result.settings, runs, chosen.tried


def truth(world: World, settings: Settings, runs: int, first: int) -> float:
    """The mean goodput of many runs, the same arrivals for each settings."""
    same = structs.replace(world, seed=first)
    return sum(same.measured(settings, first + n).goodput_per_s for n in range(runs)) / runs


def judge(world: World, roles: tuple[str, ...], runs: int, values: tuple[int, ...]) -> float:
    """The goodput of settings, given by their values."""
    return truth(world, dict(zip(roles, values, strict=True)), runs, JUDGED)


def exhaustive(world: World, runs: int) -> tuple[Settings, float]:
    """The best of the grid and of own settings: each once, the best ten again, and the goodput of
    the best under arrivals that did not choose it."""
    every: list[Settings] = [world.own, *grid(world.own, list(world.own))]
    once = [(truth(world, one, 1, 500_000), place) for place, one in enumerate(every)]
    best = [every[place] for _, place in sorted(once, reverse=True)[:10]]
    chosen = max(best, key=lambda one: truth(world, one, runs // 2, 600_000))
    return chosen, truth(world, chosen, runs, JUDGED)


def engines(traces: Path | None) -> tuple[Engine, FrontEnd, int]:
    if traces is None:
        front_end = FrontEnd(0.0, 0.0, 6e-3)
        return (
            Engine(SIMULATED, front_end, Noise((0.97, 1.0, 1.03), (0.95, 1.0, 1.05))),
            front_end,
            1024,
        )
    found = fit(read(traces / "steps" / "chat_256.csv.gz", KV_TOKENS), SIMULATED.context_s)
    noise = Noise(found.residuals, found.prefill_residuals, found.holds)
    return Engine(found.model, FrontEnd(), noise), FrontEnd(), 512


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--load", help="only loads whose name has this")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--judge-runs", type=int, default=24)
    given = parser.parse_args(words)
    engine, front_end, cap = engines(given.traces)
    default = dict(zip(ROLES, (cap, 0, 8192), strict=True))
    for name, (load, limits, own) in {
        **{name: (*case, default) for name, case in LOADS.items()},
        **SET_BEFORE,
    }.items():
        if given.load and given.load not in name:
            continue
        world = World(engine, own, load, limits)
        best, good = exhaustive(world, given.judge_runs)
        judged = lru_cache(partial(judge, world, tuple(own), given.judge_runs))
        base = judged(tuple(own.values()))
        print(f"{name}: own {base:.1f}, best of the grid {good:.1f} in time/s at {dict(best)}")
        shares, verdicts, counts, chosen, size = [], [], [], list[tuple[int, ...]](), 0
        for seed in range(given.seeds):
            trial = World(engine, own, load, limits, 1000 * seed)
            verdict, settings, runs, size = tuned(trial, front_end)
            chosen.append(tuple(settings.values()))
            got = judged(chosen[-1])
            shares.append(got / good if good else 1.0)
            verdicts.append(verdict)
            counts.append(runs)
        told = {one: verdicts.count(one) for one in sorted(set(verdicts))}
        ordered = sorted(shares)
        middle = ordered[len(ordered) // 2]
        print(f"  tune: {told}; {min(counts)} to {max(counts)} runs")
        if good:
            told_of = {one: f"{judged(one) / good:.1%}" for one in sorted(set(chosen))}
            print("  settings chosen:", told_of)
        print(f"  share of the best: {ordered[0]:.1%} to {ordered[-1]:.1%}, median {middle:.1%}")
        spent, low = max(counts) * (RUN_S + 4), size * (RESTART_S[0] + RUN_S)
        print(f"  at most {spent:.0f} s for {low:.0f} s of {size} restarts: {spent / low:.1%}")


if __name__ == "__main__":
    main()
