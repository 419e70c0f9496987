"""The controller of hold, in virtual time: loads below the knee, above it, and in between."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec import structs

from llmtop.forecast.load import Lengths
from llmtop.forecast.twin import Engine
from llmtop.slo_control.controller import Controller
from llmtop.slo_control.limits import Goal, LimitValues, Range
from llmtop.slo_control.pressure import Pressure
from llmtop.slo_control.step_costs import StepCosts
from tests.forecast.virtual_engine import FRONT_END, NOISE, OVERLAPPED
from tests.slo_control.virtual_hold import (
    CHAT,
    GOAL,
    H200,
    LONG,
    MET_S,
    OWN,
    Phase,
    Played,
    Scene,
    moving,
    play,
)

OWN_HELD = LimitValues(OWN.batch_limit, 0, OWN.token_budget)
LATE_ENGINE = Engine(OVERLAPPED, FRONT_END, NOISE)  # its launches delay the step before
COSTS = StepCosts(5e-3, 3e-5, 2e-5, 512.0, 128.0)  # 0.11 ms of a step for each request


def held(scene: Scene, engine: Engine = H200, seed: int = 0) -> Played:
    return play(engine, OWN, scene, seed, Controller(scene.goal, OWN_HELD, Range()))


@pytest.mark.parametrize(
    "engine", [H200, pytest.param(LATE_ENGINE, marks=pytest.mark.more)], ids=["plain", "late"]
)
def test_accepted_requests_are_in_time_under_a_load_that_moves(engine: Engine) -> None:
    scene = moving((30, 70, 30, 90, 40))
    default, found = play(engine, OWN, scene, 0), held(scene, engine)
    assert found.whole.late <= 0.05
    for number in (1, 3):  # overload
        assert found.phase(number).good_per_s > 45
        assert found.phase(number).good_per_s >= 3 * default.phase(number).good_per_s
    # Below the knee nothing is lost.
    assert found.phase(0).good_per_s >= 0.99 * default.phase(0).good_per_s
    times = [at for at, _ in found.decisions]
    assert all(b - a >= 1.0 for a, b in pairwise(times))
    assert found.decisions[-1][1].restored and found.decisions[-1][1].held == OWN_HELD


@pytest.mark.parametrize("before_s", [0.0, 10.0], ids=["from the start", "after a calm"])
def test_long_prompts_above_capacity_do_not_shrink_the_batch_to_nothing(before_s: float) -> None:
    """Eight such requests a second can be served in time; a batch of 4 serves half of them."""
    calm = (Phase(4, before_s, LONG),) if before_s else ()
    found = held(Scene((*calm, Phase(14, 30, LONG))))
    overload = found.phase(len(calm), after=5.0)
    assert overload.good_per_s > 7.0
    assert overload.late <= 0.05
    assert found.decisions[-1][1].held.batch_limit >= 20


def test_a_step_in_load_is_met_within_3_s() -> None:
    found = held(Scene((Phase(35, 10), Phase(80, 15))))
    assert found.phase(1, after=MET_S).late <= 0.05


def test_a_steady_overload_gets_at_most_one_change_a_second() -> None:
    found = held(Scene((Phase(90, 30),)))
    before, changes = OWN_HELD, 0
    for at, decision in found.decisions:
        pairs = zip(structs.astuple(before), structs.astuple(decision.held), strict=True)
        changes += sum(one != other for one, other in pairs) if at > 5.0 else 0
        before = decision.held
    assert changes <= 25


@pytest.mark.parametrize(("rate", "lengths"), [(35, CHAT), (3, LONG)], ids=["chat", "long"])
def test_a_load_below_the_knee_is_left_alone(rate: float, lengths: tuple[Lengths, Lengths]) -> None:
    assert held(Scene((Phase(rate, 30, lengths),))).decisions == []


def pressed(time: float, **changes: object) -> Pressure:
    calm = Pressure(time, 0, 40, 40, 40, 0, 0.01, 0.05, 0.01, 0.1)
    return structs.replace(calm, **changes)


def test_each_change_has_its_reason() -> None:
    controller = Controller(GOAL, OWN_HELD, Range())
    few = pressed(0.0, waiting=4.0, longest_s=0.5)
    assert controller.decide([few]) is None  # one long step is no overload
    queue = controller.decide([pressed(0.5, waiting=50.0)])
    assert queue is not None
    assert queue.why == "50 requests wait and 40 a second are served: a new one waits 1.30 s"
    assert 2 <= queue.held.queue_limit < 20
    other = Controller(GOAL, OWN_HELD, Range())
    slow = other.decide([pressed(0.5, tpot_s=0.08, running=300, costs=COSTS)])
    assert slow is not None and slow.why == "a token takes 80 ms with 300 streams"
    assert slow.held.batch_limit < 300 and slow.held.token_budget < 8192


def test_the_batch_follows_what_requests_cost_and_not_the_gap_of_this_second() -> None:
    """After a cut the batch drains, and its gap is low; while it fills, its gap is high."""
    limits = set()
    for tpot_s in (0.01, 0.03, 0.2):
        controller = Controller(GOAL, OWN_HELD, Range())
        seen = pressed(0.5, waiting=90.0, running=250, tpot_s=tpot_s, costs=COSTS)
        decision = controller.decide([seen])
        assert decision is not None
        limits.add(decision.held.batch_limit)
    assert limits == {round((0.7 * 0.05 - 5e-3) / COSTS.each_s)}


def test_what_the_operator_does_not_allow_is_not_set() -> None:
    controller = Controller(GOAL, OWN_HELD, Range(300, 1024, 20, 4096, 4000, 8192))
    seen = pressed(0.0, waiting=50.0, tpot_s=0.2, running=64, longest_s=0.9, costs=COSTS)
    decision = controller.decide([seen])
    assert decision is not None
    assert decision.held.batch_limit >= 300 and decision.held.token_budget == 4000
    assert decision.held.queue_limit >= 20


def test_the_slowest_rank_sets_the_limits_of_all() -> None:
    """Limits are per rank; a mean over ranks would hide one that is slow."""
    quick = pressed(0.5, running=250, costs=COSTS)
    slow = pressed(
        0.5, running=250, tpot_s=0.09, rank=3, costs=structs.replace(COSTS, token_s=9e-5)
    )
    alone, both = (Controller(GOAL, OWN_HELD, Range()) for _ in range(2))
    own, together = alone.decide([slow]), both.decide([quick, slow])
    assert own is not None and together is not None
    assert together.held == own.held
    assert together.why == "rank 3: a token takes 90 ms with 250 streams"
    assert both.decide([quick, structs.replace(slow, time=60.0)]) is None  # and it is not calm yet


def test_it_says_when_it_cannot_hold_and_does_not_shrink_the_batch_for_nothing() -> None:
    controller = Controller(Goal(1.0, 0.004), OWN_HELD, Range())  # one stream alone takes 5 ms
    for beat in range(20):
        controller.decide([pressed(beat * 0.5, tpot_s=0.03, running=200, costs=COSTS)])
    assert controller.failing_for(10.0) >= 9.0
    assert controller.held.batch_limit >= 200
