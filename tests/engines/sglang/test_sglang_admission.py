"""The order of SGLang's queue and what it reserves, changed while it runs."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.sglang.server_info import ServerInfo
from tests.fake_sglang import Launch, Scheduler
from tests.fake_sglang_loop import Req, Stamps


class CacheAwarePolicy(enum.Enum):
    """SGLang's."""

    LPM = "lpm"
    SHORTEST_PREFILL_FIRST = "shortest-prefill-first"


class CacheAgnosticPolicy(enum.Enum):
    """SGLang's."""

    FCFS = "fcfs"
    LOF = "lof"


class Tracker:
    """SGLang's NewTokenRatioTracker, as its constants make it at launch."""

    def __init__(self, conservativeness: float = 1.0) -> None:
        self.init = self.current = min(0.7 * conservativeness, 1.0)
        self.min = self.init * 0.14
        self.decay = (self.init - self.min) / 600


@pytest.fixture(autouse=True)
def policies(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = {
        "SGLANG_INIT_NEW_TOKEN_RATIO": 0.7,
        "SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR": 0.14,
        "SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS": 600,
    }
    envs = SimpleNamespace()
    for name, value in constants.items():
        setattr(envs, name, SimpleNamespace(get=lambda value=value: value))
    made: dict[str, dict[str, Any]] = {
        "sglang.srt.environ": {"envs": envs},
        "sglang.srt.managers.schedule_policy": {
            "CacheAwarePolicy": CacheAwarePolicy,
            "CacheAgnosticPolicy": CacheAgnosticPolicy,
        },
    }
    for name, contents in made.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)


class Ordered(Scheduler):
    """A scheduler with a queue that it sorts in place, and with a ratio."""

    def __init__(self, cached: bool = True, priorities: bool = False, **more: Any) -> None:
        conservativeness = more.pop("conservativeness", 1.0)
        super().__init__(**more)
        self.enable_priority_scheduling = priorities
        tree = SimpleNamespace(disable=not cached)
        self.policy = SimpleNamespace(policy=CacheAgnosticPolicy.FCFS, tree_cache=tree)
        self.new_token_ratio_tracker = Tracker(conservativeness)


def policy(engine: Launch) -> dict[str, Any]:
    found: dict[str, Any] = engine.get()["options"]["schedule_policy"]
    return found


def choose(engine: Launch, name: str) -> None:
    engine.put(schedule_policy=policy(engine)["choices"].index(name))
    engine.loop()


def test_the_order_changes_and_going_back_restores_the_order_of_arrival(
    launch: Callable[..., Launch],
) -> None:
    engine = launch(Ordered)
    queue = [Req(f"r{n}", time_stats=Stamps(scheduler_recv_time=float(n))) for n in range(5)]
    engine.scheduler.waiting_queue = queue[:]
    choose(engine, "lof")
    assert engine.scheduler.policy.policy is CacheAgnosticPolicy.LOF
    engine.scheduler.waiting_queue.reverse()  # as SGLang sorts it, in place
    back = queue[3]
    back.retraction_count = 1  # ran before, and was put back
    choose(engine, "fcfs")
    assert [r.rid for r in engine.scheduler.waiting_queue] == ["r3", "r0", "r1", "r2", "r4"]
    assert engine.last()["outcome"] == "applied"


@pytest.mark.parametrize(
    "more, choices",
    [
        ({}, ["fcfs", "lof", "lpm"]),
        ({"cached": False}, ["fcfs", "lof"]),
        ({"priorities": True}, ["fcfs", "lof"]),
    ],
)
def test_only_orders_that_this_engine_could_be_started_with(
    launch: Callable[..., Launch], more: dict[str, Any], choices: list[str]
) -> None:
    assert policy(launch(Ordered, **more))["choices"] == choices


def test_conservativeness_is_what_the_flag_would_have_made_it(
    launch: Callable[..., Launch],
) -> None:
    engine = launch(Ordered)
    told = engine.get()["options"]["schedule_conservativeness"]
    assert (told["value"], told["parts"]) == (100, 100)  # 1.0
    engine.scheduler.new_token_ratio_tracker.current = 0.2  # what it has learned
    engine.put(schedule_conservativeness=30)
    engine.loop()
    asked = Tracker(0.3)
    assert vars(engine.scheduler.new_token_ratio_tracker) == pytest.approx(vars(asked))


def test_the_launch_value_is_what_the_scheduler_has(launch: Callable[..., Launch]) -> None:
    told = launch(Ordered, conservativeness=0.3).get()["options"]["schedule_conservativeness"]
    assert told["launch"] == 30


def test_ranks_that_decide_alike_take_both_in_the_same_round(launch: Callable[..., Launch]) -> None:
    ranks = [
        launch(Ordered, tp_size=2, ps=SimpleNamespace(tp_rank=rank, pp_rank=0)).scheduler
        for rank in range(2)
    ]

    def ask(**values: int) -> list[bool]:
        request = SimpleNamespace(server_args=values)
        return [rank.set_internal_state(request).updated for rank in ranks]

    info = ranks[0].get_internal_state(SimpleNamespace()).internal_state
    assert {"schedule_policy", "schedule_conservativeness"} <= set(info["llmtop_live"])
    choices = info["llmtop_options"]["schedule_policy"]["choices"]
    assert ask(schedule_policy=choices.index("lpm"), schedule_conservativeness=50) == [True, True]
    assert {rank.policy.policy for rank in ranks} == {CacheAwarePolicy.LPM}
    assert {rank.new_token_ratio_tracker.init for rank in ranks} == {0.35}
    assert ask(schedule_policy=len(choices)) == [False, False]
    told = ServerInfo({"version": "0", "internal_states": [info]})
    option = told.option("schedule_policy")
    assert option is not None and option.named(option.value) == "fcfs"
    reserve = told.option("schedule_conservativeness")
    assert reserve is not None and reserve.named(reserve.value) == 1.0


def test_the_guard_restores_order_and_ratio(launch: Callable[..., Launch]) -> None:
    engine = launch(Ordered)
    choose(engine, "lpm")
    engine.put(schedule_conservativeness=10)
    engine.loop()
    control = engine.scheduler.llmtop_control

    def broken(*_: Any) -> None:
        raise TypeError("sabotaged")

    control._apply = broken
    engine.put(max_prefill_tokens=100)
    engine.loop()
    assert engine.scheduler.policy.policy is CacheAgnosticPolicy.FCFS
    assert vars(engine.scheduler.new_token_ratio_tracker) == pytest.approx(vars(Tracker()))
