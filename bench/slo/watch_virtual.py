"""``tune --watch`` in virtual time: how soon a harmful candidate is taken back.

    python -m bench.slo.watch_virtual [--seeds 4]

The engine is the simulated H200, and the same one 2 and 5 times slower, with limits as much longer.
Own settings keep the limits; then a candidate comes into force that does not.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, structs

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.engines.core.steps import Steps
from llmtop.forecast.load import FrontEnd, Lengths, Load, Present, Settings
from llmtop.forecast.scheduler import Plan
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, Noise, Twin
from llmtop.operations.slo.watch_meter import WatchMeter
from llmtop.slo_control.limits import Goal
from tests.forecast.virtual_engine import Reported

OWN = Settings(128, 2048, 0, 919_792)
PROMPT, OUTPUT = Lengths.span(448, 576), Lengths.span(112, 144)
BEFORE_S, RUN_S = 15.0, 8.0  # times the slowness
SLOWER = (1, 2, 5)
STEP_S = (4.93e-3, 1e-5, 3.05e-8, 2.32e-5, 3.73e-3)  # the simulated H200


class Case(Struct, frozen=True):
    """Requests a second and limits at slowness 1, and what the candidate changes."""

    rate: float
    goal: Goal
    change: dict[str, int]


CASES = {
    "batch 16: a queue builds up": Case(33, Goal(1.0, 0.05), {"batch_limit": 16}),
    "batch 24: the same, slower": Case(33, Goal(1.0, 0.05), {"batch_limit": 24}),
    "batch 256: tokens are late": Case(58, Goal(100.0, 0.0275), {"batch_limit": 256}),
    "batch 192: tokens are late, barely": Case(58, Goal(100.0, 0.0275), {"batch_limit": 192}),
}


class Inside:
    """What a watch reads of a twin; its clock moves while the watch sleeps."""

    def __init__(self, twin: Twin) -> None:
        self._twin, self._taken, self.now = twin, 0, 0.0
        self._reported = Reported(twin)
        self._found: dict[str, Counter[int]] = {"ttft": Counter(), "tpot": Counter()}
        self._take = twin.on_step
        twin.on_step = self._on_step

    def _on_step(self, at: float, plan: Plan) -> None:
        self._found["ttft"].update(bucket_of(at - one.arrived) for one in plan.firsts)
        self._found["tpot"].update(
            bucket_of((at - one.first) / (one.target - 1)) for one in plan.ended
        )
        assert self._take is not None
        self._take(at, plan)

    async def steps(self) -> Steps:
        new = self._reported.steps[self._taken :]
        self._taken += len(new)
        return Steps(tuple(new), 0, 1, {}, self.now)

    async def latencies(self) -> Latencies:
        found = {
            name: LatencyHistogram(counts.total(), 0.0, None, None, dict(counts))
            for name, counts in self._found.items()
        }
        return Latencies(found, self.now, 1, {})

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._twin.advance(self.now)


def trial(case: Case, slower: int, seed: int) -> tuple[bool, float | None, float | None]:
    """(own settings keep the limits, seconds until it is taken back, until the first is late)."""
    base, request, context, token, hidden = (slower * one for one in STEP_S)
    model = StepModel(base, request, context, token, hidden)
    noise = Noise((0.97, 1.0, 1.03), (0.95, 1.0, 1.05))
    engine = Engine(model, FrontEnd(0.0, 0.0, 6e-3), noise)
    load = Load("open", case.rate / slower, PROMPT, OUTPUT)
    twin = Twin(engine, OWN, Present(), load, seed)
    goal = Goal(*(slower * (one or 0.0) for one in structs.astuple(case.goal)))
    inside = Inside(twin)
    asyncio.run(inside.sleep(BEFORE_S * slower))
    watch = WatchMeter(
        inside, goal, RUN_S * slower,
        clock=lambda: inside.now, wall=lambda: inside.now, sleep=inside.sleep,
    )  # fmt: skip
    mine = asyncio.run(watch.measure(own=True))
    twin.scheduler.settings = structs.replace(OWN, **case.change)
    begun = inside.now
    found = asyncio.run(watch.measure(own=False))
    kept = mine is not None and mine.share >= 0.9
    late = first_late(twin, goal, begun)
    return (
        kept,
        inside.now - begun if found is None else None,
        late - begun if late is not None else None,
    )


def first_late(twin: Twin, goal: Goal, since: float) -> float | None:
    """When the first request is late: its time is over, or it ended with slow tokens."""
    assert goal.ttft_s is not None and goal.tpot_s is not None
    twin.advance(twin.now + goal.ttft_s)
    moments = []
    for one in twin.requests:
        over = one.arrived + goal.ttft_s
        if one.first < 0 or one.first > over:
            moments.append(over)
        if one.last >= 0 and one.last - one.first > goal.tpot_s * (one.target - 1):
            moments.append(one.last)
    return min((at for at in moments if at >= since), default=None)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args(words)
    for name, case in CASES.items():
        for slower in SLOWER:
            found = [trial(case, slower, seed) for seed in range(given.seeds)]
            keeping = [(back, late) for kept, back, late in found if kept]
            backs = sorted(back for back, _ in keeping if back is not None)
            after = sorted(b - late for b, late in keeping if b is not None and late is not None)
            told = ", ".join(
                f"{words} {times[0]:+.1f} to {times[-1]:+.1f} s"
                for words, times in (("after", backs), ("after the first late", after))
                if times
            )
            print(
                f"{name}, x{slower}: taken back {len(backs)} of {len(keeping)}, {told}", flush=True
            )


if __name__ == "__main__":
    main()
