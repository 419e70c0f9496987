"""What llmtop sees inside vLLM, on stand-ins for its scheduler, its engine core and its plans."""

from __future__ import annotations

import base64
import enum
import importlib
import logging
import math
import struct
import sys
import threading
import time
from collections.abc import Iterable
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.engines.vllm.stand_ins import Scheduler032, launched


class Reason(enum.Enum):
    STOP = 0
    LENGTH = 1
    ABORT = 2


class Status(enum.Enum):
    WAITING = 0
    RUNNING = 1
    PREEMPTED = 2


class Clock:
    """Monotonic seconds; unix time is a thousand more."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1000.0


def plan(
    new: dict[str, tuple[int, int]] | None = None,
    old: dict[str, tuple[int, int, int]] | None = None,
    resumed: Iterable[str] = (),
    preempted: Iterable[str] = (),
) -> Any:
    """A step. new: tokens and tokens found in the cache; old: tokens, computed before, outputs."""
    new, old = new or {}, old or {}
    tokens = {name: n for name, (n, _) in new.items()} | {name: n for name, (n, *_) in old.items()}
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=name, num_computed_tokens=cached)
            for name, (_, cached) in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(old),
            num_computed_tokens=[computed for _, computed, _ in old.values()],
            num_output_tokens=[outputs for *_, outputs in old.values()],
            resumed_req_ids=set(resumed),
        ),
        preempted_req_ids=set(preempted),
    )


def result(drafts: tuple[int, int] | None = None, /, **tokens: int) -> dict[int, Any]:
    """What a step brought: so many tokens for each request, with _end those that ended."""
    outputs = [
        SimpleNamespace(
            request_id=name.removesuffix("_end"),
            new_token_ids=[1] * count,
            finish_reason=Reason.LENGTH if name.endswith("_end") else None,
        )
        for name, count in tokens.items()
    ]
    found = drafts and SimpleNamespace(num_draft_tokens=drafts[0], num_accepted_tokens=drafts[1])
    stats = SimpleNamespace(spec_decoding_stats=found)
    return {0: SimpleNamespace(outputs=outputs, scheduler_stats=stats)}


class Request(SimpleNamespace):
    """A request as vLLM's scheduler has it."""

    def __lt__(self, other: Any) -> bool:
        return bool(self.arrival_time < other.arrival_time)


def request(name: str, arrived: float, **more: Any) -> Request:
    fields = {
        **{"request_id": name, "arrival_time": arrived, "num_output_tokens": 0},
        **{"num_prompt_tokens": 10, "num_tokens": 10, "num_computed_tokens": 0},
        **{"status": Status.RUNNING, "max_tokens": 64, "num_preemptions": 0, "priority": 0},
    }
    return Request(**fields | more)


def rows(ring: Any) -> list[dict[str, float]]:
    told = ring.read(0)
    columns, data = told["columns"], base64.b64decode(told["data"])
    size = 8 * len(columns)
    return [
        dict(zip(columns, struct.unpack_from(f"<{len(columns)}d", data, at * size), strict=True))
        for at in range(told["rows"])
    ]


class Inside:
    """The recorder of one scheduler with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        clocks = importlib.import_module("llmtop_vllm.request_clocks")
        recorder = importlib.import_module("llmtop_vllm.step_recorder")
        gap = importlib.import_module("llmtop_vllm.host_gap")
        self.ring = importlib.import_module("llmtop_live.step_ring").StepRing(64)
        self.clocks = clocks.RequestClocks(self.clock, self.clock.wall)
        self.gap = gap.HostGap()
        self.gap.core = SimpleNamespace(batch_queue=None)
        self.refused = 0
        self.recorder = recorder.StepRecorder(
            self.ring,
            self.clocks,
            self.gap,
            lambda: (3, 2),
            lambda: 77,
            lambda: self.refused,
            1,
            self.clock,
            self.clock.wall,
        )

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def step(self, made: Any, brought: Any, device_s: float = 0.01, launch_s: float = 0.002) -> Any:
        """One synchronous step; the host needs a millisecond for each of its parts."""
        self.recorder.plans()
        self.wait(0.001)
        self.recorder.planned(made)
        self.recorder.launches()
        self.wait(launch_s)
        self.recorder.launched()
        self.wait(device_s - launch_s)
        ended = self.recorder.updates()
        self.wait(0.001)
        self.recorder.updated(made, brought, ended)
        return rows(self.ring)[-1]

    def count(self, name: str) -> int:
        return int(self.clocks.latencies[name].read()["count"])

    def mean(self, name: str) -> float:
        found = self.clocks.latencies[name].read()
        return float(found["sum_s"] / found["count"])


@pytest.fixture
def inside(plugin: ModuleType) -> Inside:
    return Inside()


def test_a_step_is_what_was_planned_and_what_came_of_it(inside: Inside) -> None:
    inside.clocks.added(request("a", 1099.0))
    first = inside.step(plan(new={"a": (6, 4)}), result(a=1))
    assert (first["requests"], first["prefills"], first["prefill_tokens"]) == (1, 1, 6)
    assert (first["cached_tokens"], first["context_tokens"], first["output_tokens"]) == (4, 10, 1)
    inside.refused = 5
    second = inside.step(plan(old={"a": (1, 10, 1)}, preempted=("b", "c")), result((8, 3), a=1))
    assert (second["prefills"], second["prefill_tokens"], second["decode_tokens"]) == (0, 0, 1)
    assert (second["draft_tokens"], second["accepted_tokens"]) == (8, 3)
    assert (second["preempted"], second["refused"]) == (2, 5)
    assert (second["running"], second["waiting"], second["kv_free_blocks"]) == (3, 2, 77)
    assert second["duration_s"] == pytest.approx(0.012)  # from result to result
    assert second["schedule_s"] == pytest.approx(0.001)
    assert second["launch_s"] == pytest.approx(0.002)
    assert second["update_s"] == pytest.approx(0.001)
    assert second["host_gap_s"] == pytest.approx(0.002)  # update of the first, plan of the second


def test_prompts_in_pieces_and_what_is_computed_again_are_prefill(inside: Inside) -> None:
    made = plan(
        old={"piece": (64, 64, 0), "again": (40, 0, 5), "long": (30, 40, 9), "decodes": (1, 9, 2)},
        resumed=("again",),
    )
    found = inside.step(made, result(decodes=1))
    assert (found["prefills"], found["prefill_tokens"], found["decode_tokens"]) == (3, 134, 1)


def test_time_without_work_is_no_part_of_a_step(inside: Inside) -> None:
    inside.step(plan(new={"a": (5, 0)}), result(a_end=1))
    begun = inside.clock.now
    inside.wait(30.0)
    inside.recorder.idle(begun)
    found = inside.step(plan(new={"b": (5, 0)}), result(b=1))
    assert found["idle_s"] == pytest.approx(30.0)
    assert found["duration_s"] == pytest.approx(0.012)
    assert found["host_gap_s"] < 0.01


def test_an_empty_step_leaves_no_row(inside: Inside) -> None:
    made = plan()
    inside.recorder.plans()
    inside.recorder.planned(made)
    inside.recorder.updated(made, {}, inside.recorder.updates())
    assert rows(inside.ring) == []


class Future:
    """A step on the device, which may be asked whether it is over."""

    def __init__(self) -> None:
        self.over = False
        event = SimpleNamespace(query=lambda: self.over)
        self.async_output = SimpleNamespace(async_copy_ready_event=event)

    def done(self) -> bool:
        return False


def test_asynchronously_the_device_has_a_gap_only_if_its_step_was_over(inside: Inside) -> None:
    core = inside.gap.core
    core.batch_queue = []
    running = Future()
    plans = [plan(old={"a": (1, number, 1)}) for number in range(3)]

    def launch(number: int, future: Any) -> None:
        inside.recorder.plans()
        inside.wait(0.001)
        inside.recorder.planned(plans[number])
        inside.recorder.launches()
        inside.wait(0.001)
        inside.recorder.launched()
        core.batch_queue.insert(0, (future, plans[number], None))

    def update(number: int) -> dict[str, float]:
        core.batch_queue.pop()
        ended = inside.recorder.updates()
        inside.recorder.updated(plans[number], result(a=1), ended)
        return rows(inside.ring)[-1]

    launch(0, Future())
    launch(1, running)
    inside.wait(0.01)
    assert update(0)["host_gap_s"] == 0.0
    running.over = True  # before anybody plans the next one
    launch(2, Future())
    assert update(1)["host_gap_s"] == pytest.approx(0.001)


def test_where_the_device_cannot_be_asked_the_gap_is_zero_or_unknown(inside: Inside) -> None:
    core = inside.gap.core
    mute = SimpleNamespace(done=lambda: False, async_output=SimpleNamespace(copy_event=object()))
    core.batch_queue = [(mute, None, None)]

    def gap(waited_s: float) -> float:
        inside.recorder.launches()
        inside.recorder.launched()
        inside.wait(waited_s)
        made = plan(old={"a": (1, 5, 1)})
        inside.recorder.planned(made)
        inside.recorder.updated(made, result(a=1), inside.recorder.updates())
        return rows(inside.ring)[-1]["host_gap_s"]

    assert gap(0.005) == 0.0  # it waited for the device, which was busy
    assert math.isnan(gap(0.0001))


def test_latencies_count_from_the_arrival_at_the_server(inside: Inside) -> None:
    for name in ("a", "b"):
        inside.clocks.received(request(name, inside.clock.wall()))
    inside.wait(0.5)
    requests = {name: request(name, inside.clock.wall() - 0.5) for name in ("a", "b")}
    for one in requests.values():
        inside.clocks.added(one)
    inside.step(plan(new={"a": (5, 0), "b": (5, 0)}), result(a=1, b=1))
    for _ in range(3):
        inside.step(plan(old={"a": (1, 5, 1), "b": (1, 5, 1)}), result(a=1, b=1))
    requests["a"].num_output_tokens = 5
    inside.step(plan(old={"a": (1, 9, 4), "b": (1, 9, 4)}), result(a_end=1, b=1))
    assert inside.count("arrival_lag") == inside.count("queue") == inside.count("ttft") == 2
    assert inside.mean("queue") == pytest.approx(0.5)
    assert inside.mean("ttft") == pytest.approx(0.511)
    assert inside.mean("prefill") == pytest.approx(0.011)
    assert inside.count("itl") == 8 and inside.mean("itl") == pytest.approx(0.012)
    assert (inside.count("e2e"), inside.count("tpot")) == (1, 1)
    assert inside.mean("tpot") == pytest.approx(0.012)
    assert list(inside.clocks.open) == ["b"]


def test_a_request_that_paused_has_one_long_gap(inside: Inside) -> None:
    inside.clocks.added(request("a", inside.clock.wall()))
    inside.clocks.added(request("b", inside.clock.wall()))
    inside.step(plan(new={"a": (5, 0), "b": (5, 0)}), result(a=1, b=1))
    for _ in range(2):
        inside.step(plan(old={"b": (1, 5, 1)}), result(b=1))
    inside.step(plan(old={"a": (6, 0, 1), "b": (1, 5, 1)}, resumed=("a",)), result(a=1, b=1))
    longest = inside.clocks.latencies["itl"].read()["max_s"]
    assert inside.count("itl") == 4 and longest == pytest.approx(0.036)


def test_what_was_aborted_has_no_end_to_end_time(inside: Inside) -> None:
    inside.clocks.added(request("a", inside.clock.wall()))
    inside.step(plan(new={"a": (5, 0)}), result(a=1))
    inside.clocks.removed("a")
    inside.step(plan(old={"b": (1, 5, 1)}), result(b=1))
    assert inside.count("e2e") == inside.count("tpot") == 0
    assert inside.clocks.open == {} == inside.clocks.internal


class Queue(list[Any]):
    """vLLM's queue, first come first served."""


def test_rows_hold_lengths_and_the_clients_own_id(inside: Inside) -> None:
    rows_of = importlib.import_module("llmtop_vllm.request_rows").RequestRows
    table = importlib.import_module("llmtop_live.request_table").table
    running = request("x-1a2b3c4d", inside.clock.wall() - 2.0, external_req_id="x")
    inside.clocks.received(running)
    inside.clocks.added(running)
    inside.step(plan(new={"x-1a2b3c4d": (6, 4)}), result(**{"x-1a2b3c4d": 1}))
    running.num_output_tokens, running.num_tokens, running.num_computed_tokens = 1, 11, 10
    waiting = [
        request(f"w{n}", inside.clock.wall() - 1.0 + n * 1e-6, status=Status.WAITING)
        for n in range(5_000)
    ]
    scheduler = SimpleNamespace(
        running=[running], waiting=Queue(waiting), requests={"x-1a2b3c4d": running}
    )
    view = rows_of(
        scheduler, inside.clocks, {"x-1a2b3c4d": 3}.get, lambda: (1, len(waiting)), inside.clock
    )
    told = table(view, inside.clock.wall(), 1, "age", 50)
    first, second = told["requests"][:2]
    assert (told["running"], told["waiting"], len(told["requests"])) == (1, 5_000, 50)
    assert (first["id"], first["state"], first["phase"]) == ("x", "running", "decode")
    assert (first["prompt_tokens"], first["cached_tokens"], first["kv_blocks"]) == (10, 4, 3)
    assert first["ttft_s"] == pytest.approx(2.011)
    assert (second["id"], second["state"], second["phase"]) == ("w0", "waiting", None)
    assert second["waited_s"] == second["age_s"] == pytest.approx(1.0)
    assert view.find("x") is running and view.find("x-1") is None


class Stepping(Scheduler032):
    """As much of a scheduler as all hooks need."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.log_stats = True
        self.requests: dict[str, Any] = {}
        pool = SimpleNamespace(get_num_free_blocks=lambda: 9)
        self.kv_cache_manager = SimpleNamespace(block_pool=pool)
        self.made = plan(old={"a": (1, 5, 1)})

    def schedule(self, throttle_prefills: bool = False) -> Any:
        return self.made

    def update_from_output(self, made: Any, output: Any) -> Any:
        return output

    def add_request(self, one: Any) -> None:
        self.requests[one.request_id] = one

    def finish_requests(self, ids: Any, status: Any) -> list[str]:
        return list(ids)


class EngineCore:
    """As much of vLLM's engine core as the hooks need: one thread, one queue, one executor."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.input_queue: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self.batch_queue: Any = None
        self.model_executor = SimpleNamespace(
            execute_model=lambda made, non_block=False: made,
            sample_tokens=lambda grammar, non_block=False: grammar,
        )

    def has_work(self) -> bool:
        return bool(self.scheduler.requests)

    def _process_input_queue(self) -> None:
        if not self.has_work():
            self._handle_client_request(*self.input_queue.get(timeout=30))

    def _handle_client_request(self, kind: str, one: Any) -> None:
        if kind == "add":
            self.scheduler.add_request(self.preprocess_add_request(one))

    def execute_dummy_batch(self) -> None:
        pass

    def preprocess_add_request(self, one: Any) -> Any:
        return one

    def round(self) -> None:
        """One round of its loop."""
        self._process_input_queue()
        made = self.scheduler.schedule()
        self.model_executor.execute_model(made, non_block=True)
        self.model_executor.sample_tokens(None)
        self.scheduler.update_from_output(made, result(a=1))


@pytest.fixture
def core(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine core around a scheduler with all hooks."""
    engine, cores = ModuleType("vllm.v1.engine"), ModuleType("vllm.v1.engine.core")
    engine.EngineCoreRequestType = SimpleNamespace(WAKEUP="wake")  # type: ignore[attr-defined]
    cores.EngineCoreProc = type("EngineCoreProc", (EngineCore,), {})  # type: ignore[attr-defined]
    for module in (ModuleType("vllm.v1"), engine, cores):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cores.EngineCoreProc(launched(plugin, Stepping))


def test_the_engine_core_is_found_and_its_launch_and_idle_time_seen(core: Any) -> None:
    inside = core.scheduler.llmtop_inside.inside
    core.input_queue.put(("add", request("a-1a2b3c4d", 0.0, external_req_id="a")))
    core.round()
    core.round()
    first, second = rows(inside.steps)
    assert first["idle_s"] >= 0.0 and second["idle_s"] == 0.0
    assert not math.isnan(first["launch_s"]) and not math.isnan(second["host_gap_s"])
    assert list(core.scheduler.llmtop_inside._clocks.internal) == ["a"]
    assert inside.latencies["arrival_lag"].read()["count"] == 1
    assert inside.missing == {
        "abort": "the front ends abort requests",
        "kv_blocks": "this vLLM's KV cache manager has a different structure",  # this stand-in's
    }


def test_an_idle_engine_is_woken_for_a_change_and_for_a_table(core: Any) -> None:
    inside = core.scheduler.llmtop_inside.inside
    loop = threading.Thread(target=core._process_input_queue)
    loop.start()
    while core.scheduler.llmtop_inside._loop._core is None:
        time.sleep(0.001)
    tunables = core.scheduler._llmtop.tunables
    (told,) = tunables.submit({"max_num_seqs": 3}, False, "ann", 20.0)
    assert told["outcome"] == "applied"
    loop.join(30)
    loop = threading.Thread(target=core._process_input_queue)
    loop.start()
    assert inside.answer({"op": "requests"})["running"] == 0
    loop.join(30)


def test_what_was_patched_in_the_engine_core_is_put_back(core: Any) -> None:
    inside = core.scheduler.llmtop_inside.inside
    core.input_queue.put(("add", request("a", 0.0)))
    core.round()
    assert vars(core) and "execute_model" in vars(core.model_executor)
    inside.switch_off(TypeError("broken"), "a test")
    hooked = {"_handle_client_request", "execute_dummy_batch", "preprocess_add_request"}
    assert not hooked & set(vars(core))
    assert "_process_input_queue" not in vars(type(core))
    core.round()


HOOKS = {
    "plans": "schedule()",
    "planned": "schedule()",
    "updates": "update_from_output()",
    "updated": "update_from_output()",
    "added": "add_request()",
    "removed": "finish_requests()",
}


def one_round(scheduler: Any) -> Any:
    """Whatever vLLM calls, once."""
    scheduler.add_request(request("a", 0.0))
    brought = result(a=1)
    told = scheduler.update_from_output(scheduler.schedule(), brought)
    assert scheduler.finish_requests(["a"], None) == ["a"]
    assert told is brought
    return scheduler


def test_steps_are_recorded_and_options_still_work(plugin: ModuleType) -> None:
    scheduler = one_round(launched(plugin, Stepping))
    inside = scheduler.llmtop_inside.inside
    assert inside.abilities == ["steps", "latencies", "requests"]
    assert inside.missing["launch_s"].startswith("this vLLM's engine loop")
    (row,) = rows(inside.steps)
    assert row["requests"] == 1 and math.isnan(row["launch_s"])


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_raises_is_the_end_of_introspection_alone(
    plugin: ModuleType, hook: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    scheduler = launched(plugin, Stepping)
    inside = scheduler.llmtop_inside.inside
    recorder = sys.modules["llmtop_vllm.step_recorder"].StepRecorder
    clocks = sys.modules["llmtop_vllm.request_clocks"].RequestClocks
    holder = recorder if hasattr(recorder, hook) else clocks

    def broken(*args: Any) -> None:
        raise TypeError("sabotaged")

    monkeypatch.setattr(holder, hook, broken)
    with caplog.at_level(logging.WARNING):
        one_round(scheduler)
    one_round(scheduler)
    assert inside.abilities == []
    reason = f"TypeError in llmtop's part of {HOOKS[hook]}: sabotaged"
    assert inside.missing["steps"] == inside.missing["requests"] == reason
    assert not {"schedule", "update_from_output", "add_request"} & set(vars(scheduler))
    assert len([one for one in caplog.records if "introspection is off" in one.message]) == 1
    assert inside.answer({"op": "steps"})["ok"] is False


@pytest.mark.parametrize("hook", ["idle", "launches", "launched", "sampled", "received"])
def test_a_hook_of_the_engine_core_that_raises_is_no_harm_to_it(
    plugin: ModuleType, core: Any, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise TypeError("sabotaged")

    inside = core.scheduler.llmtop_inside
    holder = {"idle": "_idle", "received": "_received"}.get(hook, "")
    if holder:
        monkeypatch.setattr(inside._loop, holder, broken)
    else:
        monkeypatch.setattr(inside._recorder, hook, broken)
    core.input_queue.put(("add", request("a", 0.0)))
    core.round()
    assert "sabotaged" in inside.inside.missing["steps"]
    assert "execute_model" in vars(core.model_executor)  # vLLM's own
    assert "_process_input_queue" not in vars(type(core))
    core.round()


def test_what_vllm_itself_raises_is_not_held_up(plugin: ModuleType) -> None:
    class Failing(Stepping):
        def update_from_output(self, made: Any, output: Any) -> Any:
            raise RuntimeError("vLLM's own")

    scheduler = launched(plugin, Failing)
    with pytest.raises(RuntimeError, match="vLLM's own"):
        scheduler.update_from_output(scheduler.schedule(), {})
    assert scheduler.llmtop_inside.inside.abilities
