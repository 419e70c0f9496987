"""The order of vLLM's queue and the length of prompt pieces, changed between two steps."""

from __future__ import annotations

import enum
import heapq
import sys
from collections import deque
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.engines.vllm.stand_ins import Request, Scheduler032, get, launched, put


class Policy(enum.Enum):
    FCFS = "fcfs"
    PRIORITY = "priority"


class Fcfs(deque[Any]):
    def add_request(self, request: Any) -> None:
        self.append(request)

    def pop(self, at: int = 0) -> Any:
        return self.popleft()

    def insert(self, at: int, request: Any) -> None:
        self.appendleft(request)


class Priority:
    """A heap, whose iteration is in the order of the policy."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Any]] = []

    def add_request(self, request: Any) -> None:
        key = (request.priority, request.arrival_time, request.number)
        heapq.heappush(self._heap, (*key, request))

    def pop(self, at: int = 0) -> Any:
        return heapq.heappop(self._heap)[-1]

    def insert(self, at: int, request: Any) -> None:
        self.add_request(request)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Any]:
        return (entry[-1] for entry in sorted(self._heap))


def create_request_queue(policy: Policy) -> Any:
    return Priority() if policy is Policy.PRIORITY else Fcfs()


class Scheduler(Scheduler032):
    """With the queues of a real one."""

    def __init__(self, *args: Any, threshold: int = 0, **config: Any) -> None:
        super().__init__(*args, **config)
        self.policy: Any = Policy.FCFS
        self.waiting: Any = create_request_queue(self.policy)
        self.kv_holding_waiting = create_request_queue(self.policy)
        self.scheduler_config.long_prefill_token_threshold = threshold

    def numbers(self) -> list[int]:
        return [request.number for request in self.waiting]


@pytest.fixture
def queues(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """vLLM's own queues beside the plugin."""
    name = "vllm.v1.core.sched.request_queue"
    parts = name.split(".")
    for count in range(2, len(parts)):
        package = ".".join(parts[:count])
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    module = ModuleType(name)
    module.SchedulingPolicy = Policy  # type: ignore[attr-defined]
    module.create_request_queue = create_request_queue  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return plugin


def filled(plugin: ModuleType) -> Any:
    """Two requests run, five wait; the later a request comes the more urgent it is."""
    scheduler = launched(plugin, Scheduler, 2)
    for number in range(7):
        request = Request(number)
        request.priority = -number
        scheduler.waiting.add_request(request)
    scheduler.schedule()
    return scheduler


def test_the_queue_is_turned_round_and_back_into_the_order_of_arrival(queues: ModuleType) -> None:
    scheduler = filled(queues)
    found = get(queues, scheduler)["options"]["scheduling_policy"]
    assert (found["value"], found["choices"]) == (0, ["fcfs", "priority"])
    put(queues, scheduler, scheduling_policy=1)
    scheduler.schedule()
    assert scheduler.numbers() == [6, 5, 4, 3, 2]
    assert scheduler.policy is Policy.PRIORITY

    put(queues, scheduler, scheduling_policy=0)
    scheduler.schedule()
    assert scheduler.numbers() == [2, 3, 4, 5, 6]
    assert scheduler.policy.value == "fcfs"
    assert get(queues, scheduler)["options"]["scheduling_policy"]["value"] == 0


def test_what_was_preempted_comes_first_again(queues: ModuleType) -> None:
    scheduler = filled(queues)
    put(queues, scheduler, scheduling_policy=1)
    scheduler.schedule()
    put(queues, scheduler, evict=True, max_num_seqs=1, scheduling_policy=0)
    scheduler.schedule()
    assert scheduler.numbers()[0] in (0, 1) and scheduler.numbers()[1:] == [2, 3, 4, 5, 6]


def test_a_policy_that_is_not_there_is_refused(queues: ModuleType) -> None:
    scheduler = filled(queues)
    (told,) = put(queues, scheduler, scheduling_policy=2)["changes"]
    assert told["reason"] == "must be the number of one of: fcfs, priority"


def test_queues_of_somebody_else_are_left_alone(queues: ModuleType) -> None:
    class Strange(Scheduler):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.waiting = []

    found = get(queues, launched(queues, Strange))
    assert "scheduling_policy" not in found["options"]


def test_a_threshold_is_zero_or_has_room_for_a_token_and_its_drafts(queues: ModuleType) -> None:
    scheduler = launched(queues, Scheduler, drafts=4)
    (told,) = put(queues, scheduler, long_prefill_token_threshold=4)["changes"]
    assert told["reason"] == "must be 0 (off) or at least 5"
    put(queues, scheduler, long_prefill_token_threshold=64)
    scheduler.schedule()
    assert scheduler.scheduler_config.long_prefill_token_threshold == 64
    put(queues, scheduler, long_prefill_token_threshold=0)
    scheduler.schedule()
    assert scheduler.scheduler_config.long_prefill_token_threshold == 0


def test_prompts_that_are_never_cut_have_no_threshold(queues: ModuleType) -> None:
    for config in ({"chunked": False}, {"whole_images": True}):
        found = get(queues, launched(queues, Scheduler, **config))
        assert "long_prefill_token_threshold" not in found["options"]


def test_whatever_breaks_order_and_threshold_are_those_of_the_launch(
    queues: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = filled(queues)
    put(queues, scheduler, scheduling_policy=1, long_prefill_token_threshold=64)
    scheduler.schedule()
    monkeypatch.setattr(scheduler, "_preempt_request", lambda: None)
    put(queues, scheduler, evict=True, max_num_seqs=1)
    scheduler.schedule()
    assert get(queues, scheduler)["disabled"]
    assert scheduler.policy.value == "fcfs" and sorted(scheduler.numbers()) == scheduler.numbers()
    assert scheduler.scheduler_config.long_prefill_token_threshold == 0
