"""How well the forecast predicts the simulated engine: present loads, live changes, the knee.

    python -m bench.forecast.simulated [--json FILE] [--knee]

The engine is the demo's: its scheduler and its step times, in virtual time, so that no busy machine
disturbs it. Each pair: the load runs for 40 s, the forecast reads the steps of that time as
``llmtop forecast`` does, then the option is changed, if it is one, and the next 20 s are measured.
The first quarter of both is left out. --knee: the knee against that which ``llmtop saturate``
finds, level by level, each for 12 s; its levels are far apart, so levels 10 % apart are measured
as well, with three seeds.
"""

import argparse
import heapq
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct, structs

from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE, GPUS, MODELS
from llmtop.engines.simulated.simulator.model.roofline import Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Plan
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.forecast.figures import quantile
from llmtop.forecast.fit import fit
from llmtop.forecast.intervals import Interval
from llmtop.forecast.knee_forecast import knee
from llmtop.forecast.load import Settings
from llmtop.forecast.observed import observed, present
from llmtop.forecast.questions import Answer, Question, ask
from llmtop.loadgen.experiments.knee import SHARE
from llmtop.loadgen.experiments.search import Search, Trial
from llmtop.operations.slo.fitted_engine import SIMULATED_FRONT_END, newest
from llmtop.values import replace
from tests.closed_loop import Lengths
from tests.virtual_steps import VirtualEngine

BANDWIDTH = 4.32e12
CONTEXT_S, WEIGHTS_S = 131_072 / BANDWIDTH, 16.06e9 / BANDWIDTH
WARM_S, HORIZON_S, LISTEN_S = 40.0, 20.0, 15.0
LEVEL_S, LEVEL_WARM_S = 12.0, 4.0
DEMO = Lengths((768, 1280), (160, 224), (0.0,))
CHAT = Lengths((448, 576), (112, 144))


class Case(Struct, frozen=True):
    """A load on an engine, and what is changed. level: streams, or requests a second."""

    loop: str
    level: float
    drafts: int = 4
    change: Mapping[str, int] = {}
    lengths: Lengths = DEMO
    seqs: int = 96
    blocks: int = 6800

    @property
    def name(self) -> str:
        unit = "streams" if self.loop == "closed" else "/s"
        changed = "".join(f", {option}={value}" for option, value in self.change.items())
        drafts = f"{self.drafts} drafts" if self.drafts else "no drafts"
        return f"{self.level:g} {unit}, {drafts}{changed}"


LEVELS = [("closed", 8), ("closed", 32), ("closed", 64), ("closed", 160), ("open", 8), ("open", 18)]
CHANGES = [{"max_num_seqs": 64}, {"max_num_seqs": 24}, {"max_num_batched_tokens": 2048}]
CASES = [
    *(Case(loop, level, drafts) for drafts in (4, 0) for loop, level in LEVELS),
    *(Case("closed", 160, drafts, change) for drafts in (4, 0) for change in CHANGES),
    *(Case("open", 40, drafts, {"max_num_seqs": 48}) for drafts in (4, 0)),
    Case("open", 40, 0),
    Case("open", 40, 4),
]
KNEES = {
    "demo, 4 drafts": Case("closed", 160),
    "demo, no drafts": Case("closed", 160, 0),
    "batch limit 32": Case("closed", 64, 0, seqs=32),
    "short chats, batch limit 512": Case("closed", 420, 0, {}, CHAT, 512, 57_000),
    "short chats, batch limit 128": Case("closed", 150, 0, {}, CHAT, 128, 57_000),
}


class Engine(VirtualEngine):
    """Also knows when the first and the last token of each request came."""

    def __init__(self, case: Case, seed: int) -> None:
        drafting = Speculation("ngram", 4, 0.85) if case.drafts else None
        super().__init__(
            seqs=case.seqs,
            blocks=case.blocks,
            lengths=case.lengths,
            speculation=drafting,
            seed=seed,
        )
        method = "ngram" if drafting else ""
        self.roofline = Roofline.of(GPUS["h200"], MODELS["llama-3.1-8b"], method=method)
        self.first: dict[int, float] = {}
        self.last: dict[int, tuple[float, int]] = {}

    def _run(self, plan: Plan) -> None:
        before = [(work.request, work.request.generated) for work in plan.work]
        super()._run(plan)
        for request, generated in before:
            if not generated and request.generated:
                self.first[request.serial] = self.now
            if request.generated >= request.target:
                self.last[request.serial] = self.now, request.target

    def load(self, case: Case, seconds: float) -> None:
        """Run a load for so long."""
        if case.loop == "closed":
            self.hold(int(case.level), seconds)
        else:
            self.poisson(case.level, seconds)

    def change(self, options: Mapping[str, int]) -> None:
        """Set options, between two steps."""
        self.scheduler.limits = replace(self.scheduler.limits, **options)

    def drain(self) -> None:
        """Let everything end that is under way; nothing new comes."""
        scheduler = self.scheduler
        while scheduler.running or scheduler.queued or self._arrivals:
            while self._arrivals and self._arrivals[0][0] <= self.now:
                scheduler.add(heapq.heappop(self._arrivals)[2])
            plan = scheduler.schedule()
            if plan is None:
                self.now = self._arrivals[0][0]
            else:
                self._run(plan)

    def figures(self, begin: float, end: float, loop: str = "closed") -> dict[str, float | None]:
        """Of the requests that ended in a time, in the open loop of those that came in it, as the
        forecast has it; and the tokens of its steps."""
        ttft, tpot = [], []
        for serial, (last, target) in self.last.items():
            sent = self.streams[serial - 1].sent
            if begin <= (last if loop == "closed" else sent) < end:
                ttft.append(self.first[serial] - sent)
                tpot.append((last - self.first[serial]) / (target - 1))
        tokens = sum(s.output_tokens or 0 for s in self.steps if begin < s.end <= end)
        return {
            "output_tokens_per_s": tokens / (end - begin),
            "ttft_p50": quantile(ttft, 0.5),
            "ttft_p95": quantile(ttft, 0.95),
            "tpot_p50": quantile(tpot, 0.5),
            "tpot_p95": quantile(tpot, 0.95),
        }


def settings_of(case: Case, changed: Mapping[str, int]) -> Settings:
    return Settings(
        changed.get("max_num_seqs", case.seqs),
        changed.get("max_num_batched_tokens", 8192),
        0,
        case.blocks * BLOCK_SIZE,
    )


def pair(case: Case, seed: int) -> dict[str, Any]:
    """One forecast, and what came."""
    engine = Engine(case, seed)
    engine.load(case, WARM_S)
    found = fit(engine.steps, CONTEXT_S, WEIGHTS_S, launches=False)
    table = engine.table()
    seen = observed(newest(engine.steps, LISTEN_S), table).load
    held = present(table.running, table.waiting, table, seen, 1)
    question = Question(settings_of(case, case.change), seen, present=held, horizon=HORIZON_S)
    answer = ask(found, SIMULATED_FRONT_END, question)
    told: dict[str, Any] = {"case": case.name, "seed": seed, "loop": seen.loop, "level": seen.level}
    if answer.refused is not None:
        return {**told, "refused": answer.refused.reason}
    engine.change(case.change)
    begin = engine.now
    engine.load(case, HORIZON_S)
    if case.loop == "open":
        engine.drain()
    measured = engine.figures(begin + HORIZON_S / 4, begin + HORIZON_S, case.loop)
    told["figures"] = beside(measured, answer)
    if case.loop == "open":  # how much of the error is that of the rate, which is a count
        came = sum(begin <= s.sent < begin + HORIZON_S for s in engine.streams) / HORIZON_S
        load = structs.replace(seen, level=came, counted=0)
        again = ask(found, SIMULATED_FRONT_END, structs.replace(question, load=load))
        told["came"], told["same_rate"] = came, beside(measured, again)
    return told


def beside(
    measured: Mapping[str, float | None], answer: Answer
) -> dict[str, tuple[float, float, float, float]]:
    """Each figure as measured, as expected, and its interval."""
    return {
        name: (value, one.value, one.low, one.high)
        for name, value in measured.items()
        if value and (one := answer.expected.get(name)) is not None
    }


def saturated(case: Case, seed: int, top: int) -> tuple[int, int, int | None]:
    """The knee as ``saturate`` finds it, with the levels between which it is."""
    engine = Engine(case, seed)
    search = Search(top=top, with_limits=False)
    while (level := search.next_level()) is not None:
        began = engine.now
        engine.hold(level, LEVEL_S + LEVEL_WARM_S)
        found = engine.figures(began + LEVEL_WARM_S, engine.now)["output_tokens_per_s"] or 0.0
        n = sum(began + LEVEL_WARM_S <= last for last, _ in engine.last.values())
        search.feed(Trial(level, n, n, found, 0.01))
        engine.drain()
    bend = search.knee()
    assert bend is not None
    return bend.level, bend.low, bend.high


def fine(case: Case, seed: int, low: int, top: int) -> float:
    """The number of streams at which the curve of throughput crosses the knee's share of its best,
    from levels 10 % apart."""
    engine = Engine(case, seed)
    levels = [low]
    while levels[-1] < top:
        levels.append(min(top, max(levels[-1] + 1, round(1.1 * levels[-1]))))
    rates = []
    for level in levels:
        began = engine.now
        engine.hold(level, LEVEL_S + LEVEL_WARM_S)
        rates.append(engine.figures(began + LEVEL_WARM_S, engine.now)["output_tokens_per_s"] or 0.0)
        engine.drain()
    goal = SHARE * max(rates)
    place = next(n for n, rate in enumerate(rates) if rate >= goal)
    if not place:
        return float(low)
    before, at = rates[place - 1], rates[place]
    return levels[place - 1] + (goal - before) / (at - before) * (levels[place] - levels[place - 1])


def knees(case: Case, seed: int) -> dict[str, Any]:
    engine = Engine(case, seed)
    engine.load(case, WARM_S)
    found = fit(engine.steps, CONTEXT_S, WEIGHTS_S, launches=False)
    seen = observed(newest(engine.steps, LISTEN_S), engine.table()).load
    top = 2 * case.seqs
    told = knee(found, SIMULATED_FRONT_END, settings_of(case, {}), seen, top)
    level, low, high = saturated(case, seed + 100, top)
    one: Interval | None = told.streams
    return {
        "forecast": None if one is None else (one.value, one.low, one.high),
        "refused": told.refused.reason if told.refused else None,
        "saturate": (level, low, high),
        "fine": [round(fine(case, n, max(1, low // 2), min(top, 2 * level)), 1) for n in (1, 2, 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--knee", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.knee:
        for name, case in KNEES.items():
            print(name, json.dumps(knees(case, asked.seed)), flush=True)
        return
    told = []
    for case in CASES:
        told.append(pair(case, asked.seed))
        print(words(told[-1]), flush=True)
    print(summary(told, "figures"))
    print("open loops, asked with the rate that came:")
    print(summary(told, "same_rate"))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1))


def words(told: Mapping[str, Any]) -> str:
    if "refused" in told:
        return f"{told['case']}: refused: {told['refused']}"
    parts = [
        f"{name} {value:.4g} for {expected:.4g} ({expected / value - 1:+.1%}"
        f"{'' if low <= value <= high else ' !'})"
        for name, (value, expected, low, high) in told["figures"].items()
    ]
    return f"{told['case']} [{told['loop']} {told['level']:.4g}]: {'  '.join(parts)}"


def summary(told: list[dict[str, Any]], which: str) -> str:
    """Median, worst error and bias of each figure."""
    errors: dict[str, list[float]] = {}
    inside = 0
    for one in told:
        for name, (value, expected, low, high) in one.get(which, {}).items():
            errors.setdefault(name, []).append(expected / value - 1)
            inside += low <= value <= high
    count = sum(map(len, errors.values()))
    rows = [
        f"{name}: n {len(found)}, median error {median(map(abs, found)):.1%},"
        f" worst {max(map(abs, found)):.1%}, bias {median(found):+.1%}"
        for name, found in errors.items()
    ]
    return "\n".join([*rows, f"within the interval: {inside} of {count}"])


if __name__ == "__main__":
    main()
