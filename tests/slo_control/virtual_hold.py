"""An engine in virtual time under a load that moves, with the controller of hold or without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct, structs

from llmtop.forecast.figures import quantile
from llmtop.forecast.load import FrontEnd, Lengths, Load, Present, Settings
from llmtop.forecast.scheduler import Plan, VirtualRequest
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, Noise, Twin
from llmtop.slo_control.controller import Controller, Decision
from llmtop.slo_control.limits import Goal
from llmtop.slo_control.pressure import PressureGauge
from tests.forecast.virtual_engine import Reported

BEAT_S = 0.5
MET_S = 3.0  # a step in load is to be met within so long
GOAL = Goal(1.0, 0.05)
CHAT = (Lengths.span(448, 576), Lengths.span(112, 144))
LONG = (Lengths.span(3600, 4400), Lengths.span(112, 144))
MIXED = (Lengths((*range(448, 577, 8), *range(448, 577, 8), 3600, 4000, 4400)), CHAT[1])
SHORT_ANSWERS = (Lengths.span(900, 1100), Lengths.span(12, 20))
LONG_ANSWERS = (Lengths.span(200, 300), Lengths.span(700, 900))
# The simulated H200 with an 8B model.
H200 = Engine(
    StepModel(4.93e-3, 1e-5, 3.05e-8, 2.32e-5, 3.73e-3), FrontEnd(0.0, 0.0, 6e-3), Noise()
)
OWN = Settings(1024, 8192, 0, 919_792)


class Phase(Struct, frozen=True):
    """So many requests a second, of these lengths, for so long."""

    rate: float
    seconds: float
    lengths: tuple[Lengths, Lengths] = CHAT


class Scene(Struct, frozen=True):
    """A load, and what is to be kept."""

    phases: tuple[Phase, ...]
    goal: Goal = GOAL

    @property
    def begins(self) -> list[float]:
        """When each phase begins."""
        return [0.0, *accumulate(phase.seconds for phase in self.phases[:-1])]

    @property
    def seconds(self) -> float:
        """All phases together."""
        return sum(phase.seconds for phase in self.phases)


def moving(
    rates: Sequence[float], lengths: tuple[Lengths, Lengths] = CHAT, each: float = 30.0
) -> Scene:
    """The load of the issue: each rate for 30 s."""
    return Scene(tuple(Phase(rate, each, lengths) for rate in rates))


class Served(Struct, frozen=True):
    """What became of the requests that came between two moments."""

    seconds: float
    came: int
    refused: int
    good: int
    ttft_p95: float | None
    tpot_p95: float | None

    @property
    def good_per_s(self) -> float:
        """Requests in time, a second."""
        return self.good / self.seconds

    @property
    def late(self) -> float:
        """The share of the accepted that was not in time."""
        accepted = self.came - self.refused
        return 1 - self.good / accepted if accepted else 0.0


class Played(Struct, frozen=True):
    """One run. decisions: with their moments."""

    scene: Scene
    requests: list[VirtualRequest]
    decisions: list[tuple[float, Decision]]
    failing: list[float]

    def between(self, begin: float, end: float) -> Served:
        """Of the requests that came between two moments."""
        came = [r for r in self.requests if begin <= r.arrived < end]
        accepted = [r for r in came if not r.refused]
        goal = self.scene.goal
        return Served(
            end - begin,
            len(came),
            len(came) - len(accepted),
            sum(in_time(r, goal) for r in accepted),
            quantile([r.first - r.arrived for r in accepted if r.first >= 0], 0.95),
            quantile([tpot(r) for r in accepted if r.last >= 0], 0.95),
        )

    def phase(self, number: int, after: float = 0.0) -> Served:
        """Of the requests of one phase, from ``after`` seconds of it on."""
        begin = self.scene.begins[number]
        return self.between(begin + after, begin + self.scene.phases[number].seconds)

    @property
    def whole(self) -> Served:
        """Of all."""
        return self.between(0.0, self.scene.seconds)


def tpot(request: VirtualRequest) -> float:
    return (request.last - request.first) / max(1, request.target - 1)


def in_time(request: VirtualRequest, goal: Goal) -> bool:
    if request.refused or request.first < 0 or request.last < 0:
        return False
    late = goal.ttft_s is not None and request.first - request.arrived > goal.ttft_s
    slow = goal.tpot_s is not None and tpot(request) > goal.tpot_s
    return not (late or slow)


def play(
    engine: Engine,
    settings: Settings,
    scene: Scene,
    seed: int,
    controller: Controller | None = None,
) -> Played:
    """Run a scene; the same seed gives the same arrivals and lengths."""
    first = scene.phases[0]
    twin = Twin(engine, settings, Present(), Load("open", first.rate, *first.lengths), seed)
    reported, gauge = Reported(twin), PressureGauge(scene.goal.time_scale_s)
    firsts: list[tuple[float, float]] = []
    take = twin.on_step
    assert take is not None

    def on_step(at: float, plan: Plan) -> None:
        firsts.extend((at, at - request.arrived) for request in plan.firsts)
        take(at, plan)

    twin.on_step = on_step
    decisions: list[tuple[float, Decision]] = []
    failing: list[float] = []
    taken, now = 0, 0.0
    twin.stop_sending = scene.seconds
    for phase, begin in zip(scene.phases, scene.begins, strict=True):
        twin.load = Load("open", phase.rate, *phase.lengths)
        twin.level = phase.rate
        while now < begin + phase.seconds - 1e-9:
            now += BEAT_S
            twin.advance(now)
            gauge.add(reported.steps[taken:])
            taken = len(reported.steps)
            while firsts and firsts[0][0] <= now - 2 * scene.goal.time_scale_s:
                firsts.pop(0)
            recent = [ttft for _, ttft in firsts]
            seen = gauge.read(now, quantile(recent, 0.95) if len(recent) >= 5 else None)
            if controller is None or not seen:
                continue
            decision = controller.decide(seen)
            failing.append(controller.failing_for(now))
            if decision is not None:
                decisions.append((now, decision))
                twin.scheduler.settings = structs.replace(
                    twin.scheduler.settings, **structs.asdict(decision.held)
                )
    twin.advance(10 * scene.seconds)
    return Played(scene, twin.requests, decisions, failing)
