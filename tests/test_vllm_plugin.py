"""The plugin that runs inside vLLM, on stand-ins with the attributes of real schedulers."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.vllm import PLUGIN_FOLDERS


class Request:
    """What a scheduler keeps of a request, as far as the plugin touches it."""

    def __init__(self, number: int, drafts: list[int] | None = None) -> None:
        self.number = number
        self.status = "RUNNING"
        self.spec_token_ids = drafts if drafts is not None else []
        self.priority = 0
        self.arrival_time = float(number)


class Scheduler020:
    """vLLM 0.20: one limit, which is the gate and is asserted at the end of a step."""

    gate = "max_num_running_reqs"

    def __init__(self, seqs: int = 8, budget: int = 256, drafts: int = 0, **config: Any) -> None:
        speculative = SimpleNamespace(method="ngram") if drafts else None
        self.vllm_config = SimpleNamespace(
            speculative_config=speculative,
            parallel_config=SimpleNamespace(
                data_parallel_index=config.get("index", 0),
                data_parallel_size=config.get("ranks", 1),
            ),
        )
        self.scheduler_config = SimpleNamespace(
            max_num_batched_tokens=budget,
            enable_chunked_prefill=config.get("chunked", True),
            disable_chunked_mm_input=config.get("whole_images", False),
        )
        self.max_model_len = 128
        self.num_spec_tokens = drafts
        self.max_num_running_reqs = seqs
        self.max_num_scheduled_tokens = budget
        self.running: list[Any] = []
        self.waiting: list[Any] = []
        self.policy = SimpleNamespace(value="fcfs")
        self.connector = None
        self.use_v2_model_runner = False
        self.proposed = [-1] * drafts  # one list for all requests, as the asynchronous one has

    def schedule(self) -> dict[int, int]:
        """Admit, count drafts, assert what vLLM asserts; drafts scheduled by request number."""
        while self.waiting and len(self.running) < getattr(self, self.gate):
            request = self.waiting.pop(0)
            request.status = "RUNNING"
            self.running.append(request)
        assert len(self.running) <= self.max_num_running_reqs
        scheduled = {}
        for request in self.running:
            scheduled[request.number] = len(request.spec_token_ids)
            request.spec_token_ids = self.proposed
        return scheduled

    def _preempt_request(self, request: Any, timestamp: float) -> None:
        assert request.status == "RUNNING"
        request.status = "PREEMPTED"
        self.waiting.insert(0, request)

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)


class Scheduler024(Scheduler020):
    """0.24: an argument to schedule(), and the lookup of drafts by batch size."""

    def __init__(self, *args: Any, table: list[int] | None = None, **config: Any) -> None:
        super().__init__(*args, **config)
        self.dynamic_sd_lookup = table

    def schedule(self, throttle_prefills: bool = False) -> dict[int, int]:
        return super().schedule()


class Scheduler028(Scheduler024):
    """0.28: preemption takes one more argument, and is told to the workers wherever it happens."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.reset_preempted_req_ids: set[int] = set()

    def _preempt_request(
        self, request: Any, timestamp: float, drop_stale_output: bool = False
    ) -> None:
        super()._preempt_request(request, timestamp)
        self.reset_preempted_req_ids.add(request.number)


class Scheduler032(Scheduler028):
    """0.31 and later: a gate of its own."""

    gate = "max_num_active_reqs"

    def __init__(self, seqs: int = 8, *args: Any, active: int = 0, **config: Any) -> None:
        super().__init__(seqs, *args, **config)
        self.max_num_active_reqs = active or seqs


ALL = pytest.mark.parametrize("kind", [Scheduler020, Scheduler024, Scheduler028, Scheduler032])


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The plugin as vLLM imports it: from PYTHONPATH, beside the two modules that it needs."""
    for folder in PLUGIN_FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    config = ModuleType("vllm.config.scheduler")
    config.SchedulerConfig = type(  # type: ignore[attr-defined]
        "SchedulerConfig", (), {"get_scheduler_cls": lambda self: self.scheduler_cls}
    )
    version = ModuleType("vllm.version")
    version.__version__ = "0.0.test"  # type: ignore[attr-defined]
    for module in (ModuleType("vllm"), ModuleType("vllm.config"), config, version):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "s").mkdir(mode=0o700)
    monkeypatch.setenv("LLMTOP_LIVE_SOCKET", str(tmp_path / "s" / "live"))
    yield importlib.import_module("llmtop_vllm")
    for name in [name for name in sys.modules if name.startswith(("llmtop_live", "llmtop_vllm"))]:
        del sys.modules[name]


def launched(plugin: ModuleType, scheduler: type, *args: Any, **config: Any) -> Any:
    """A scheduler made as vLLM's engine core makes it, after plugins were loaded."""
    plugin.register()
    chosen = sys.modules["vllm.config.scheduler"].SchedulerConfig()
    chosen.scheduler_cls = scheduler
    return chosen.get_scheduler_cls()(*args, **config)


def ask(plugin: ModuleType, scheduler: Any, line: bytes) -> dict[str, Any]:
    door = sys.modules["llmtop_live.door"]
    told: dict[str, Any] = door.answer(scheduler._llmtop.desk, line, logging.getLogger("quiet"))
    return told


def get(plugin: ModuleType, scheduler: Any) -> dict[str, Any]:
    return ask(plugin, scheduler, b'{"op": "get"}')


def put(plugin: ModuleType, scheduler: Any, evict: bool = False, **changes: Any) -> dict[str, Any]:
    """Hand changes in while the engine is between two steps; they wait."""
    request = {"op": "set", "changes": changes, "evict": evict, "by": "ann", "wait_s": 0}
    told = ask(plugin, scheduler, json.dumps(request).encode())
    assert told["ok"], told
    return told


def outcome(plugin: ModuleType, scheduler: Any) -> tuple[str, str | None]:
    last = get(plugin, scheduler)["history"][-1]
    return last["outcome"], last["reason"]


def fill(scheduler: Any, count: int, drafts: int = 0) -> None:
    scheduler.waiting.extend(Request(number, [-1] * drafts) for number in range(count))
    scheduler.schedule()


def running(scheduler: Any) -> list[int]:
    return [request.number for request in scheduler.running]


@ALL
def test_max_num_seqs_evicts_the_last_and_lets_them_back_in_order(
    plugin: ModuleType, kind: type
) -> None:
    scheduler = launched(plugin, kind, 8)
    fill(scheduler, 10)
    told = put(plugin, scheduler, evict=True, max_num_seqs=3)
    assert told["changes"][0]["outcome"] == "pending"
    assert running(scheduler) == [0, 1, 2, 3, 4, 5, 6, 7]  # nothing happens between two steps

    scheduler.schedule()
    assert running(scheduler) == [0, 1, 2]
    assert [request.number for request in scheduler.waiting] == [3, 4, 5, 6, 7, 8, 9]
    now = get(plugin, scheduler)
    assert now["options"]["max_num_seqs"]["value"] == 3
    assert (now["running"], now["waiting"], now["evicted_total"]) == (3, 7, 5)
    assert now["history"][-1]["evicted"] == 5

    put(plugin, scheduler, max_num_seqs=8)
    scheduler.schedule()
    assert running(scheduler) == [0, 1, 2, 3, 4, 5, 6, 7]


@ALL
def test_without_eviction_running_requests_finish_and_nobody_comes_in(
    plugin: ModuleType, kind: type
) -> None:
    scheduler = launched(plugin, kind, 8)
    fill(scheduler, 10)
    put(plugin, scheduler, max_num_seqs=2)
    for left in range(8, 2, -1):
        scheduler.schedule()  # its assertion holds at each step
        assert len(scheduler.running) == left
        scheduler.running.pop()
    for _ in range(3):
        scheduler.schedule()
        assert len(scheduler.running) == 2
    assert outcome(plugin, scheduler) == ("applied", None)


def test_a_change_up_and_down_before_the_next_step_evicts_nobody(plugin: ModuleType) -> None:
    # An evicted request that came back within one step would break vLLM.
    scheduler = launched(plugin, Scheduler032, 8)
    fill(scheduler, 8)
    put(plugin, scheduler, evict=True, max_num_seqs=2)
    put(plugin, scheduler, max_num_seqs=8)
    scheduler.schedule()
    assert running(scheduler) == [0, 1, 2, 3, 4, 5, 6, 7]
    first, second = get(plugin, scheduler)["history"]
    assert (first["outcome"], first["evicted"]) == ("refused", 0)
    assert "replaced" in first["reason"]
    assert second["outcome"] == "applied"


def test_under_the_priority_policy_the_least_urgent_is_evicted(plugin: ModuleType) -> None:
    scheduler = launched(plugin, Scheduler032, 4)
    scheduler.policy.value = "priority"
    fill(scheduler, 4)
    scheduler.running[1].priority = 9
    put(plugin, scheduler, evict=True, max_num_seqs=3)
    scheduler.schedule()
    assert running(scheduler) == [0, 2, 3]


def test_the_cap_may_rise_to_the_slots_that_the_engine_has(plugin: ModuleType) -> None:
    scheduler = launched(plugin, Scheduler032, 8, active=2)  # --max-num-active-seqs 2
    fill(scheduler, 10)
    assert len(scheduler.running) == 2
    seqs = get(plugin, scheduler)["options"]["max_num_seqs"]
    assert (seqs["launch"], seqs["maximum"]) == (2, 8)
    put(plugin, scheduler, max_num_seqs=6)
    scheduler.schedule()
    assert len(scheduler.running) == 6


@pytest.mark.parametrize("runner, told", [(True, "does not tell its workers"), (False, None)])
def test_where_workers_do_not_hear_of_it_eviction_is_refused(
    plugin: ModuleType, runner: bool, told: str | None
) -> None:
    scheduler = launched(plugin, type("S", (Scheduler024,), {}), 8)
    scheduler.use_v2_model_runner = runner
    reins = sys.modules["llmtop_vllm.reins"].Reins(scheduler, "0.24", logging.getLogger("quiet"))
    objection = reins._seqs.objection(2, True)
    assert (told in objection) if told else objection is None
    assert reins._seqs.objection(2, False) is None


def test_a_kv_connector_or_an_unknown_preemption_refuses_eviction(plugin: ModuleType) -> None:
    class Connected(Scheduler032):
        def __init__(self) -> None:
            super().__init__(8)
            self.connector = object()  # type: ignore[assignment]

    class Stranger(Scheduler032):
        def _preempt_request(self, request: Any, timestamp: float, why: str) -> None:  # type: ignore[override]
            raise AssertionError("must not be called")

    for kind, word in ((Connected, "connector"), (Stranger, "does not know")):
        scheduler = launched(plugin, kind)
        fill(scheduler, 8)
        (change,) = put(plugin, scheduler, evict=True, max_num_seqs=2)["changes"]
        assert change["outcome"] == "refused"
        assert word in change["reason"]
        put(plugin, scheduler, max_num_seqs=2)
        scheduler.schedule()
        assert outcome(plugin, scheduler) == ("applied", None)


@ALL
def test_drafts_are_trimmed_where_the_drafter_has_a_fixed_number(
    plugin: ModuleType, kind: type
) -> None:
    scheduler = launched(plugin, kind, 8, drafts=4)
    fill(scheduler, 3, drafts=4)
    assert set(scheduler.schedule().values()) == {4}
    put(plugin, scheduler, num_speculative_tokens=0)
    assert set(scheduler.schedule().values()) == {0}
    assert set(scheduler.schedule().values()) == {0}
    put(plugin, scheduler, num_speculative_tokens=3)
    assert set(scheduler.schedule().values()) == {3}
    assert scheduler.proposed == [-1, -1, -1, -1]  # the list that all requests share is untouched
    put(plugin, scheduler, num_speculative_tokens=4)
    assert set(scheduler.schedule().values()) == {4}
    assert "cost stays" in get(plugin, scheduler)["options"]["num_speculative_tokens"]["note"]


def test_a_launch_table_is_capped_and_given_back(plugin: ModuleType) -> None:
    table = [0, 4, 4, 2, 1]
    scheduler = launched(plugin, Scheduler032, 4, drafts=4, table=table)
    fill(scheduler, 2, drafts=4)
    put(plugin, scheduler, num_speculative_tokens=0)
    assert set(scheduler.schedule().values()) == {4}  # drafts made before are still verified
    assert scheduler.dynamic_sd_lookup == [0, 0, 0, 0, 0]
    put(plugin, scheduler, num_speculative_tokens=2)
    scheduler.schedule()
    assert scheduler.dynamic_sd_lookup == [0, 2, 2, 2, 1]
    put(plugin, scheduler, num_speculative_tokens=4)
    scheduler.schedule()
    assert scheduler.dynamic_sd_lookup == [0, 4, 4, 2, 1]


def test_the_lookup_is_never_made_up_where_none_was_given(plugin: ModuleType) -> None:
    # It killed the worker of ngram_gpu, whose propose() asserts its fixed number.
    scheduler = launched(plugin, Scheduler032, 8, drafts=4)
    put(plugin, scheduler, num_speculative_tokens=0)
    scheduler.schedule()
    assert scheduler.dynamic_sd_lookup is None


def test_speculation_is_listed_only_where_it_was_armed(plugin: ModuleType) -> None:
    assert "num_speculative_tokens" not in get(plugin, launched(plugin, Scheduler032))["options"]


@ALL
def test_the_token_budget_changes_between_steps(plugin: ModuleType, kind: type) -> None:
    scheduler = launched(plugin, kind, 8, 256, drafts=3)
    put(plugin, scheduler, max_num_batched_tokens=4)
    assert scheduler.max_num_scheduled_tokens == 256
    scheduler.schedule()
    assert scheduler.max_num_scheduled_tokens == 4
    (change,) = put(plugin, scheduler, max_num_batched_tokens=3)["changes"]
    assert change["reason"] == "must lie between 4 and 256 (the launch value)"


def test_a_prompt_that_cannot_be_cut_must_fit_into_the_budget(plugin: ModuleType) -> None:
    whole = get(plugin, launched(plugin, Scheduler032, 8, 256, chunked=False))["options"]
    assert whole["max_num_batched_tokens"]["minimum"] == 128  # max_model_len
    images = get(plugin, launched(plugin, Scheduler032, whole_images=True))["options"]
    assert "max_num_batched_tokens" not in images


def test_data_parallel_engines_have_a_socket_each_and_say_so(
    plugin: ModuleType, tmp_path: Path
) -> None:
    path = str(tmp_path / "live")
    assert plugin.socket_path(Scheduler032(index=0), path) == path
    assert plugin.socket_path(Scheduler032(index=3), path) == path + ".3"
    found = get(plugin, launched(plugin, Scheduler032, ranks=4))["options"]["max_num_seqs"]
    assert "rank alone, one of 4" in found["note"]


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("_preempt_request", {"max_num_seqs": 2}),
    ("spec_token_ids", {"num_speculative_tokens": 0}),
    ("max_num_scheduled_tokens", {"max_num_batched_tokens": 64}),
]


@pytest.mark.parametrize("fault, change", FAULTS)
def test_whatever_breaks_launch_values_come_back_and_the_engine_goes_on(
    plugin: ModuleType, fault: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = launched(plugin, Scheduler032, 8, 256, drafts=4)
    fill(scheduler, 8, drafts=4)
    put(plugin, scheduler, max_num_seqs=7, max_num_batched_tokens=128, num_speculative_tokens=1)
    scheduler.schedule()
    if fault == "_preempt_request":
        monkeypatch.setattr(scheduler, fault, lambda: None)
    elif fault == "spec_token_ids":
        monkeypatch.delattr(scheduler.running[3], fault)
    else:
        reins = sys.modules["llmtop_vllm.reins"].Reins
        monkeypatch.setattr(reins, "_apply", lambda self, orders: 1 // 0)
    put(plugin, scheduler, evict=True, **change)

    if fault == "spec_token_ids":
        scheduler._llmtop.step()  # the stand-in's own schedule() would stumble over it too
        scheduler.running[3].spec_token_ids = []
    scheduler.schedule()

    now = get(plugin, scheduler)
    assert "in llmtop's part of schedule()" in now["disabled"]
    assert all(o["value"] == o["launch"] for o in now["options"].values())
    assert outcome(plugin, scheduler)[0] == "refused"
    assert (scheduler.max_num_active_reqs, scheduler.max_num_scheduled_tokens) == (8, 256)
    assert running(scheduler) == [0, 1, 2, 3, 4, 5, 6, 7]  # nobody was lost on the way
    assert set(scheduler.schedule().values()) == {4}
    (late,) = put(plugin, scheduler, max_num_seqs=2)["changes"]
    assert late["outcome"] == "refused"
    assert "switched off" in late["reason"]
    scheduler.schedule()
    assert len(scheduler.running) == 8


def test_the_end_of_the_engine_is_not_held_up(plugin: ModuleType) -> None:
    # vLLM's signal handler raises SystemExit in whatever runs at that moment.
    scheduler = launched(plugin, Scheduler032, 8)
    fill(scheduler, 8)

    def told_to_go(request: Any, timestamp: float) -> None:
        raise SystemExit

    scheduler._preempt_request = told_to_go
    put(plugin, scheduler, evict=True, max_num_seqs=2)
    with pytest.raises(SystemExit):
        scheduler.schedule()


def test_arguments_go_through_and_the_class_stays_what_vllm_chose(plugin: ModuleType) -> None:
    class Telling(Scheduler032):
        def schedule(self, throttle_prefills: bool = False) -> Any:
            return throttle_prefills

    scheduler = launched(plugin, Telling)
    assert isinstance(scheduler, Telling)
    assert type(scheduler).__name__ == "Telling"
    assert scheduler.schedule(True) is True
    assert scheduler.schedule(throttle_prefills=True) is True


def test_without_the_variable_vllm_is_left_alone(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMTOP_LIVE_SOCKET")
    assert type(launched(plugin, Scheduler032)) is Scheduler032


def test_a_second_call_changes_nothing(plugin: ModuleType) -> None:
    plugin.register()
    assert len(type(launched(plugin, Scheduler032)).__mro__) == len(Scheduler032.__mro__) + 1


def test_a_scheduler_that_is_a_stranger_runs_without_us(
    plugin: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    class Stranger:
        def schedule(self) -> str:
            return "scheduled"

    scheduler = launched(plugin, Stranger)
    assert scheduler.schedule() == "scheduled"
    assert "no live options" in caplog.text


def test_a_factory_in_place_of_a_class_is_passed_on(plugin: ModuleType) -> None:
    def factory() -> Scheduler032:
        return Scheduler032()

    assert plugin.live_scheduler(factory) is factory
