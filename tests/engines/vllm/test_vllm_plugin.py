"""The plugin that runs inside vLLM, on stand-ins with the attributes of real schedulers."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.engines.vllm.stand_ins import (
    Request,
    Scheduler020,
    Scheduler024,
    Scheduler028,
    Scheduler032,
    get,
    launched,
    put,
)

ALL = pytest.mark.parametrize("kind", [Scheduler020, Scheduler024, Scheduler028, Scheduler032])


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


@pytest.mark.parametrize(
    "runner, told", [(True, "does not report preemptions outside a step"), (False, None)]
)
def test_where_workers_do_not_hear_of_it_eviction_is_refused(
    plugin: ModuleType, runner: bool, told: str | None
) -> None:
    scheduler = launched(plugin, type("S", (Scheduler024,), {}), 8)
    scheduler.use_v2_model_runner = runner
    control = sys.modules["llmtop_vllm.scheduler_control"].SchedulerControl(
        scheduler, "0.24", logging.getLogger("quiet")
    )
    objection = control._seqs.objection(2, True)
    assert (told in objection) if told else objection is None
    assert control._seqs.objection(2, False) is None


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
    assert "full cost" in get(plugin, scheduler)["options"]["num_speculative_tokens"]["note"]


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
    found = get(plugin, launched(plugin, Scheduler032, index=3))
    assert found["rank"] == 3
    assert found["options"]["max_num_seqs"]["note"] is None  # whoever asks all ranks says so
    assert get(plugin, launched(plugin, Scheduler032))["rank"] == 0


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
        control = sys.modules["llmtop_vllm.scheduler_control"].SchedulerControl
        monkeypatch.setattr(control, "_apply", lambda self, orders: 1 // 0)
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
