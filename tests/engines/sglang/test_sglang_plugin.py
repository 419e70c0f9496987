"""The plugin that runs inside SGLang, on stand-ins with the attributes of real schedulers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.core.options import Outcome
from llmtop.engines.tuning.live_client import LiveClient
from tests.engines.sglang.conftest import until_it_listens
from tests.fake_sglang import CAP, Launch, Registry, Scheduler, Scheduler0512


def test_it_tells_what_can_be_changed(launch: Callable[..., Launch]) -> None:
    engine = launch(Scheduler, 8, 1024)
    engine.scheduler.running_batch.reqs = [1, 2]
    engine.scheduler.waiting_queue = [3]
    told = engine.get()
    assert (told["engine"], told["version"], told["pid"]) == ("sglang", "0.0.test", os.getpid())
    assert (told["running"], told["waiting"], told["disabled"]) == (2, 1, None)
    ranges = {
        name: (option["value"], option["minimum"], option["maximum"], option["applies"])
        for name, option in told["options"].items()
    }
    assert ranges == {
        "max_running_requests": (8, 1, 8, "drains"),
        "chunked_prefill_size": (1024, 1, 1024, "live, up to the launch value"),
        "max_prefill_tokens": (16384, 1, 16384, "live, up to the launch value"),
    }


def test_changes_take_effect_between_two_batches_and_not_before(
    launch: Callable[..., Launch],
) -> None:
    engine = launch()
    told = engine.put(max_running_requests=3, chunked_prefill_size=64, max_prefill_tokens=100)
    assert [change["outcome"] for change in told] == ["pending"] * 3
    scheduler = engine.scheduler
    assert (scheduler.args[CAP], scheduler.chunked_prefill_size) == (8, 1024)
    engine.loop()
    assert scheduler.args[CAP] == 3
    assert (scheduler.chunked_prefill_size, scheduler.max_prefill_tokens) == (64, 100)
    assert [change["outcome"] for change in engine.get()["history"]] == ["applied"] * 3
    assert (engine.last()["by"], engine.last()["from"], engine.last()["to"]) == ("ann", 16384, 100)


def test_a_raised_cap_lets_requests_in_at_once(launch: Callable[..., Launch]) -> None:
    # SGLang keeps the batch marked full until a request leaves it.
    engine = launch()
    engine.put(max_running_requests=3)
    engine.loop()
    engine.scheduler.running_batch.batch_is_full = True
    engine.put(max_running_requests=8)
    engine.loop()
    assert engine.scheduler.running_batch.batch_is_full is False


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"max_running_requests": 9}, "between 1 and 8"),
        ({"max_running_requests": 0}, "between 1 and 8"),
        ({"chunked_prefill_size": -1}, "between 1 and 1024"),
        ({"max_prefill_tokens": 2.5}, "whole number"),
        ({"mem_fraction_static": 1}, "not a live option"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    launch: Callable[..., Launch], changes: dict[str, Any], words: str
) -> None:
    (told,) = launch().put(**changes)
    assert told["outcome"] == "refused"
    assert words in told["reason"]


def test_chosen_requests_cannot_be_put_back(launch: Callable[..., Launch]) -> None:
    (told,) = launch().put(evict=True, max_running_requests=2)
    assert (told["outcome"], told["evicted"]) == ("refused", 0)
    assert "all running requests or none" in told["reason"]


def test_a_piece_of_a_prompt_stays_a_multiple_of_what_the_engine_cuts_it_to(
    launch: Callable[..., Launch],
) -> None:
    engine = launch(Scheduler, 8, 1024, page_size=16, truncation_align_size=24)
    option = engine.get()["options"]["chunked_prefill_size"]
    assert option["minimum"] == 48
    assert "multiple of 48" in option["note"]
    engine.put(chunked_prefill_size=150)
    engine.loop()
    assert engine.scheduler.chunked_prefill_size == 144
    assert (engine.last()["to"], engine.value("chunked_prefill_size")) == (144, 144)
    engine.put(chunked_prefill_size=1024)  # the launch value itself, whatever it is
    engine.loop()
    assert engine.scheduler.chunked_prefill_size == 1024


def test_mixed_batches_leave_room_for_prompts_beside_all_decodes(
    launch: Callable[..., Launch],
) -> None:
    options = launch(Scheduler, 32, 1024, is_mixed_chunk=True).get()["options"]
    assert options["chunked_prefill_size"]["minimum"] == 33
    assert options["max_prefill_tokens"]["minimum"] == 33


@pytest.mark.parametrize("more", [{"chunk": None}, {"dllm_config": "blocks"}])
def test_what_was_not_chunked_at_launch_is_not_offered(
    launch: Callable[..., Launch], more: dict[str, Any]
) -> None:
    assert "chunked_prefill_size" not in launch(Scheduler, **more).get()["options"]


@pytest.mark.parametrize(
    "size, word", [("tp_size", "tensor"), ("pp_size", "pipe"), ("dp_size", "data")]
)
def test_several_ranks_are_left_to_sglangs_own_way(
    launch: Callable[..., Launch], size: str, word: str
) -> None:
    engine = launch(Scheduler, **{size: 2})
    told = engine.get()
    assert told["options"] == {}
    assert word in told["disabled"] and "/set_internal_state" in told["disabled"]
    (change,) = engine.put(max_running_requests=3)
    assert change["outcome"] == "refused"
    engine.loop()
    assert engine.scheduler.args[CAP] == 8


@pytest.mark.parametrize("kind", [Scheduler, Scheduler0512])
def test_a_change_by_sglangs_own_endpoint_is_seen(
    launch: Callable[..., Launch], kind: type
) -> None:
    engine = launch(kind)
    answer = engine.scheduler.set_internal_state(SimpleNamespace(server_args={CAP: 5}))
    assert answer.updated is True
    engine.loop()
    assert engine.value("max_running_requests") == 5
    assert (engine.last()["by"], engine.last()["to"]) == ("/set_internal_state", 5)
    engine.scheduler.set_internal_state(SimpleNamespace(server_args={CAP: 99}))
    engine.loop()
    assert engine.value("max_running_requests") == 5


@pytest.mark.parametrize("broken", ["chunked_prefill_size", "max_running_requests"])
def test_the_guard_restores_the_launch_values_and_never_runs_again(
    launch: Callable[..., Launch], broken: str
) -> None:
    engine = launch()
    engine.put(max_running_requests=3, max_prefill_tokens=77)
    engine.loop()
    control = engine.scheduler.llmtop_control
    apply = control._apply

    def sabotaged(option: Any, to: int) -> None:
        apply(option, to)
        raise TypeError("sabotaged")

    control._apply = sabotaged
    changes: dict[str, Any] = {broken: 5}
    engine.put(**changes)
    engine.loop()  # the engine goes on
    scheduler = engine.scheduler
    assert scheduler.args[CAP] == 8
    assert (scheduler.chunked_prefill_size, scheduler.max_prefill_tokens) == (1024, 16384)
    told = engine.get()
    assert "TypeError" in told["disabled"] and "sabotaged" in told["disabled"]
    assert {name: o["value"] for name, o in told["options"].items()} == {
        name: o["launch"] for name, o in told["options"].items()
    }
    assert told["history"][-1]["outcome"] == "refused"
    (change,) = engine.put(max_running_requests=4)
    assert change["outcome"] == "refused"
    engine.loop()
    assert scheduler.args[CAP] == 8


def ask_all(ranks: list[Launch], **values: Any) -> list[bool]:
    """What each rank answers to SGLang's own request, which reaches all of them."""
    request = SimpleNamespace(server_args=dict(values))
    return [rank.scheduler.set_internal_state(request).updated for rank in ranks]


def test_several_ranks_take_a_value_that_sglang_brings_them_in_the_same_round(
    launch: Callable[..., Launch],
) -> None:
    ranks = [
        launch(Scheduler, 8, 1024, tp_size=2, ps=SimpleNamespace(tp_rank=rank, pp_rank=0))
        for rank in range(2)
    ]

    def chunks() -> list[int]:
        return [rank.scheduler.chunked_prefill_size for rank in ranks]

    assert ask_all(ranks, chunked_prefill_size=64) == [True, True]
    assert chunks() == [64, 64]  # at once, not when each comes around to it
    assert ask_all(ranks, max_prefill_tokens=500) == [True, True]
    for rank in ranks:
        told = rank.scheduler.get_internal_state(SimpleNamespace()).internal_state
        assert (told["chunked_prefill_size"], told["max_prefill_tokens"]) == (64, 500)
        assert told["llmtop_live"] == ["chunked_prefill_size", "max_prefill_tokens"]
    # What one would refuse all refuse, and a mixture is SGLang's to refuse.
    for bad in (0, 1025, -1, "64", True, None):
        assert ask_all(ranks, chunked_prefill_size=bad) == [False, False]
    assert ask_all(ranks, chunked_prefill_size=32, **{CAP: 4}) == [False, False]
    assert chunks() == [64, 64]
    assert ask_all(ranks, **{CAP: 4}) == [True, True]
    # The socket reaches one of them, so it stays out of it.
    assert "only /set_internal_state reaches all of them" in ranks[0].get()["disabled"]
    assert ask_all(ranks, chunked_prefill_size=1024) == [True, True]


def test_pieces_on_several_ranks_are_whole_pages(launch: Callable[..., Launch]) -> None:
    rank = launch(Scheduler, 8, 1024, dp_size=2, page_size=16)
    assert ask_all([rank], chunked_prefill_size=40) == [False]
    assert ask_all([rank], chunked_prefill_size=48) == [True]


def test_the_stages_of_a_pipeline_take_nothing(launch: Callable[..., Launch]) -> None:
    rank = launch(Scheduler, 8, 1024, tp_size=2, pp_size=2)
    assert ask_all([rank], chunked_prefill_size=64) == [False]
    told = rank.scheduler.get_internal_state(SimpleNamespace()).internal_state
    assert "llmtop_live" not in told


def test_one_rank_alone_is_changed_over_the_socket_only(launch: Callable[..., Launch]) -> None:
    rank = launch()
    assert ask_all([rank], chunked_prefill_size=64) == [False]
    assert rank.scheduler.chunked_prefill_size == 1024


class Wider(Scheduler):
    """A SGLang whose own way takes the prefill budget, too."""

    def __init__(self) -> None:
        super().__init__()
        self.internal_state = SimpleNamespace(_update_handlers=lambda: {"max_prefill_tokens": None})
        self.took: list[Any] = []

    def set_internal_state(self, request: Any) -> Any:
        wanted = dict(request.server_args)
        if "max_prefill_tokens" not in wanted:
            return super().set_internal_state(request)
        self.took.append(wanted)
        self.max_prefill_tokens = wanted["max_prefill_tokens"]
        return SimpleNamespace(updated=True)


def test_what_sglang_takes_itself_is_set_its_own_way(launch: Callable[..., Launch]) -> None:
    engine = launch(Wider)
    engine.put(max_prefill_tokens=100)
    engine.loop()
    assert engine.scheduler.took == [{"max_prefill_tokens": 100}]
    assert engine.last()["outcome"] == "applied"
    # Somebody else sets it: what we show follows.
    engine.scheduler.set_internal_state(SimpleNamespace(server_args={"max_prefill_tokens": 300}))
    engine.loop()
    assert engine.value("max_prefill_tokens") == 300
    assert engine.last()["by"] == "/set_internal_state"


def test_an_unknown_scheduler_is_left_stock(launch: Callable[..., Launch]) -> None:
    class Other(Scheduler):
        def __init__(self) -> None:
            super().__init__()
            del self.server_args

    engine = launch(Other)
    engine.loop()
    assert engine.scheduler.llmtop_control is None


def test_a_scheduler_without_these_values_offers_what_is_left(
    launch: Callable[..., Launch],
) -> None:
    class Bare(Scheduler):
        def __init__(self) -> None:
            super().__init__()
            del self.max_prefill_tokens, self.chunked_prefill_size
            self.args = {}

    assert launch(Bare).get()["options"] == {}


def test_it_stays_out_where_there_is_no_scheduler_or_no_socket(
    plugin: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.delitem(sys.modules, "sglang.srt.managers.scheduler")
        elsewhere.setattr("multiprocessing.parent_process", lambda: "the server")
        plugin.register()
    monkeypatch.delenv("LLMTOP_LIVE_SOCKET")
    plugin.register()
    assert registry.hooks == []


def test_over_its_socket(launch: Callable[..., Launch], path: Path) -> None:
    engine = launch()
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.005):
            engine.loop()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until_it_listens(path)
        client = LiveClient(path)
        changes = {"max_running_requests": 2}
        (change,) = asyncio.run(client.set(changes, by="ann@pts/3", wait_s=5))
        assert (change.outcome, change.before, change.after) == (Outcome.APPLIED, 8, 2)
        state = asyncio.run(client.get())
        assert state.options["max_running_requests"].value == 2
        assert state.history[-1].by == "ann@pts/3"
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        over.set()
        thread.join()


def test_only_the_first_rank_opens_the_socket(
    plugin: ModuleType, launch: Callable[..., Launch], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class SocketServer:
        def __init__(self, path: str, *_: Any) -> None:
            self.path = path

        def open(self) -> None:
            opened.append(self.path)

    monkeypatch.setattr(plugin, "SocketServer", SocketServer)
    launch(Scheduler, tp_size=2, ps=SimpleNamespace(tp_rank=1, pp_rank=0))
    assert opened == []
    launch(Scheduler, tp_size=2, ps=SimpleNamespace(tp_rank=0, pp_rank=0))
    assert opened == [os.environ["LLMTOP_LIVE_SOCKET"]]
