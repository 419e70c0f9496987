"""The steps, times and requests that llmtop's plugin shows of SGLang's scheduler."""

from __future__ import annotations

import base64
import logging
import math
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.fake_sglang_loop import DEVICE_S, LAUNCH_S, SCHEDULE_S, UPDATE_S, Finish, Loop, Req

Row = dict[str, float]


class Watched:
    """A scheduler that is looked into, and what it shows."""

    def __init__(self, plugin: ModuleType, loop: Loop, arrived: bool = False) -> None:
        modules = sys.modules
        ranks = modules["llmtop_sglang.ranks"].Ranks(loop)
        self.loop = loop
        self.inside = modules["llmtop_sglang.scheduler_introspection"].SchedulerIntrospection(
            loop, ranks, logging.getLogger("watched"), clock=lambda: loop.time
        )
        loop.released = self.inside.released
        received = loop.process_input_requests

        def process(requests: list[Any]) -> list[Any]:
            self.inside.round_begins()
            return received(requests)

        loop.process_input_requests = process  # type: ignore[method-assign]

    @property
    def told(self) -> Any:
        return self.inside.introspection

    def rows(self) -> list[Row]:
        told = self.told.answer({"op": "steps", "since": 0})
        assert told["ok"], told
        columns, raw = told["columns"], base64.b64decode(told["data"])
        size = 8 * len(columns)
        return [
            dict(zip(columns, struct.unpack_from(f"<{len(columns)}d", raw, n * size), strict=True))
            for n in range(told["rows"])
        ]

    def histogram(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.told.answer({"op": "latencies"})["histograms"][name]
        return found


@pytest.fixture
def watch(plugin: ModuleType) -> Callable[..., Watched]:
    return lambda *args, **more: Watched(plugin, Loop(*args, **more))


@pytest.mark.parametrize("overlap", [True, False])
def test_every_token_of_every_request_is_in_one_step(
    watch: Callable[..., Watched], overlap: bool
) -> None:
    watched = watch(overlap=overlap)
    loop = watched.loop
    for n in range(20):
        loop.arrive(Req(f"r{n}", prompt=10 + n, tokens=3 + n % 5))
        loop.rounds(n % 2)
    loop.rounds(60)
    rows = watched.rows()
    assert sum(row["output_tokens"] for row in rows) == sum(3 + n % 5 for n in range(20))
    assert sum(row["prefill_tokens"] for row in rows) == sum(6 + n for n in range(20))
    assert sum(row["cached_tokens"] for row in rows) == 80
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert max(row["running"] for row in rows) == 8
    assert {row["kv_free_blocks"] for row in rows} == {1005.0}


def test_under_overlap_a_step_lasts_until_the_next_launch(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(Req("a", tokens=30))
    loop.rounds(20)
    steady = watched.rows()[5:15]
    # The device takes 20 ms for each; from launch to result it would be twice that.
    assert [row["duration_s"] for row in steady] == pytest.approx([DEVICE_S] * 10)
    assert {row["host_gap_s"] for row in steady} == {0.0}
    assert [row["schedule_s"] for row in steady] == pytest.approx([SCHEDULE_S] * 10)
    assert [row["launch_s"] for row in steady] == pytest.approx([LAUNCH_S] * 10)
    assert [row["update_s"] for row in steady] == pytest.approx([UPDATE_S] * 10)


def test_in_the_normal_loop_the_device_waits_for_the_host(watch: Callable[..., Watched]) -> None:
    watched = watch(overlap=False)
    watched.loop.arrive(Req("a", tokens=30))
    watched.loop.rounds(20)
    steady = watched.rows()[5:15]
    whole = DEVICE_S + SCHEDULE_S + LAUNCH_S + UPDATE_S
    assert [row["duration_s"] for row in steady] == pytest.approx([whole] * 10)
    assert [row["host_gap_s"] for row in steady] == pytest.approx([UPDATE_S + SCHEDULE_S] * 10)


def test_on_a_cpu_the_launch_computes(watch: Callable[..., Watched]) -> None:
    watched = watch(device="cpu")
    watched.loop.arrive(Req("a", tokens=30))
    watched.loop.rounds(20)
    row = watched.rows()[10]
    assert row["launch_s"] == pytest.approx(LAUNCH_S + DEVICE_S)
    assert row["host_gap_s"] == pytest.approx(UPDATE_S + SCHEDULE_S)


@pytest.mark.parametrize("overlap", [True, False])
def test_idle_time_is_no_step_s_time(watch: Callable[..., Watched], overlap: bool) -> None:
    watched = watch(overlap=overlap)
    loop = watched.loop
    loop.arrive(Req("a", tokens=5))
    loop.rounds(12)
    ended = len(watched.rows())
    # The last one too, which nothing else will close; overlap computes one step too many.
    assert ended == 5 + overlap
    loop.time += 7.0
    loop.arrive(Req("b", tokens=5))
    loop.rounds(12)
    rows = watched.rows()
    assert sum(row["duration_s"] for row in rows) < 1.0
    assert 7.0 <= rows[ended]["idle_s"] < 7.1
    assert math.isnan(rows[ended]["host_gap_s"]) or rows[ended]["host_gap_s"] == 0.0
    assert {row["idle_s"] for row in rows[ended + 1 :]} == {0.0}


def test_a_pause_is_no_step_s_time(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(Req("a", tokens=20))
    loop.rounds(6)
    for _ in range(2):  # paused: rounds that only receive
        loop.process_input_requests([])
    loop.time += 50.0
    loop.rounds(20)
    assert max(row["duration_s"] for row in watched.rows()) < 0.1


def test_latencies_are_those_of_the_stamps(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    requests = [Req(f"r{n}", tokens=5) for n in range(12)]
    loop.arrive(*requests)
    loop.rounds(40)
    ttft = watched.histogram("ttft")
    stamps = [request.time_stats for request in requests]
    assert ttft["count"] == 12
    waited = [s.prefill_finished_time - s.scheduler_recv_time for s in stamps]
    assert ttft["sum_s"] == pytest.approx(sum(waited))
    assert (ttft["min_s"], ttft["max_s"]) == pytest.approx((min(waited), max(waited)))
    assert watched.histogram("itl")["count"] == 12 * 4
    gaps = sum(s.completion_time - s.prefill_finished_time for s in stamps)
    assert watched.histogram("itl")["sum_s"] == pytest.approx(gaps)
    assert watched.histogram("tpot")["sum_s"] == pytest.approx(gaps / 4)
    assert watched.histogram("e2e")["count"] == 12
    assert watched.told.latencies.base["ttft"] == "arrival at the scheduler"


def test_probes_and_requests_cut_short_are_no_latencies(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(Req("HEALTH_CHECK_1", tokens=1), Req("cut", tokens=50), Req("whole", tokens=5))
    loop.rounds(6)
    watched.told.abort(["cut"], "ann", "")
    loop.rounds(20)
    assert watched.histogram("e2e")["count"] == 1
    assert watched.histogram("ttft")["count"] == 2  # the cut one's first token was there


def test_the_table_is_the_scheduler_s(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(*(Req(f"r{n}", prompt=10 + n, tokens=50) for n in range(12)))
    loop.rounds(5)
    put_back = loop.running_batch.reqs.pop()
    put_back.is_retracted, put_back.retraction_count = True, 1
    loop.waiting_queue.insert(0, put_back)
    told = watched.told._table("tokens", None)  # between two rounds, as we are
    assert (told["running"], told["waiting"]) == (7, 5)
    rows = {row["id"]: row for row in told["requests"]}
    assert len(rows) == 12
    assert rows["r7"]["state"] == "preempted" and rows["r7"]["preemptions"] == 1
    assert rows["r8"]["state"] == "waiting" and rows["r8"]["ttft_s"] is None
    first = rows["r0"]
    assert (first["state"], first["phase"], first["prompt_tokens"]) == ("running", "decode", 10)
    assert first["generated_tokens"] == len(loop.running_batch.reqs[0].output_ids)
    assert (first["max_tokens"], first["kv_blocks"], first["cached_tokens"]) == (50, 10, 4)
    named = watched.told._table("age", ["r3", "gone"])
    assert [row["id"] for row in named["requests"]] == ["r3"]


@pytest.mark.parametrize("kv", [None, object()])
def test_older_versions_keep_the_cache_length_in_the_request(
    watch: Callable[..., Watched], kv: object
) -> None:
    watched = watch()
    watched.loop.arrive(Req("old", kv=kv, kv_committed_len=33))
    (row,) = watched.told._table("age", None)["requests"]
    assert row["kv_blocks"] == 33


def test_abort_takes_exact_ids_only(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(*(Req(f"x-{n}", tokens=50) for n in (1, 10, 100)))
    loop.arrive(*(Req(f"y-{n}", tokens=50) for n in range(5)))
    loop.arrive(Req("z-1"), Req("z-10"), Req("z-2"))
    loop.rounds(4)
    done = watched.told.abort(["x-1", "z-1", "nobody"], "ann@pts/3", "too slow")
    assert done == (["x-1", "z-1"], ["nobody"], [])
    left = {r.rid for r in watched.inside.introspection.view.waiting()}
    assert {"z-10", "z-2"} == left
    loop.rounds(4)
    left = {r.rid for r in loop.running_batch.reqs}
    assert {"x-10", "x-100", "z-10"} <= left and not {"x-1", "z-1"} & left
    (sent,) = loop.sent
    assert sent[0] == "z-1" and sent[1]["status_code"] == 503
    assert "ann@pts/3" in sent[1]["message"] and "too slow" in sent[1]["message"]


def test_one_that_already_answered_ends_without_an_error(watch: Callable[..., Watched]) -> None:
    watched = watch()
    loop = watched.loop
    retracted = Req("r", tokens=50, retraction_count=1, is_retracted=True)
    retracted.output_ids.append(0)
    loop.waiting_queue.append(retracted)
    watched.told.abort(["r"], "ann", "")
    assert "status_code" not in loop.sent[0][1]


@pytest.mark.parametrize("where", ["launching", "launched", "processing", "processed", "scheduled"])
def test_a_failure_in_any_hook_leaves_a_stock_scheduler(
    watch: Callable[..., Watched], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch()
    loop = watched.loop
    loop.arrive(*(Req(f"r{n}", tokens=9) for n in range(3)))
    loop.rounds(3)

    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("sabotaged")

    setattr(watched.inside._recorder, where, broken)
    loop.rounds(30)
    assert not loop.running_batch.reqs and not loop.waiting_queue  # all were served
    told = watched.told
    assert told.abilities == []
    assert "TypeError" in told.missing["steps"] and "sabotaged" in told.missing["steps"]
    assert not {"run_batch", "process_batch_result", "get_next_batch_to_run"} & set(vars(loop))
    assert [r.levelname for r in caplog.records if "introspection is off" in r.message] == [
        "WARNING"
    ]


def test_what_cannot_be_seen_is_named(plugin: ModuleType) -> None:
    loop = Loop()
    loop.disaggregation_mode.value = "prefill"
    apart = Watched(plugin, loop).told
    assert apart.abilities == ["requests", "abort"]
    assert all("disaggregated" in apart.missing[name] for name in ("steps", "latencies"))
    loop = Loop()
    del loop.token_to_kv_pool_allocator
    assert "kv_free_blocks" in Watched(plugin, loop).told.missing
    staged = Watched(plugin, Loop(pp_size=2)).told
    assert staged.abilities == [] and "pipeline" in staged.missing["abort"]


class Lacking:
    """A result or a batch of a version that lacks some of its attributes."""

    def __init__(self, real: Any, *names: str) -> None:
        self._real, self._names = real, names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return getattr(self._real, name)


def test_what_a_version_lacks_is_named_when_it_is_looked_for(plugin: ModuleType) -> None:
    class Older(Loop):
        def get_next_batch_to_run(self) -> Any:
            batch = super().get_next_batch_to_run()
            if batch is not None:
                batch.prefill_stats = None
            return batch

        def run_batch(self, batch: Any) -> Any:
            result = super().run_batch(batch)
            batch.seq_lens_cpu = None
            result.copy_done = Lacking(result.copy_done, "query")
            del result.num_correct_drafts
            return result

    loop = Older()
    loop.spec_algorithm.is_none = lambda: False
    loop.server_args.speculative_num_draft_tokens = None
    watched = Watched(plugin, loop)
    request = Req("a", tokens=9)
    del request.kv, request.priority
    loop.arrive(request)
    loop.rounds(6)
    assert watched.told.view.row(request, 0.0)["kv_blocks"] is None
    missing = watched.told.answer({"op": "steps"})["missing"]
    assert set(missing) == {
        *("context_tokens", "cached_tokens", "draft_tokens", "accepted_tokens", "host_gap_s"),
        *("refused", "arrival_lag", "kv_blocks", "priority"),
    }
    named = set(missing) & set(watched.rows()[0])
    empty = {name for name in watched.rows()[0] if all(r[name] != r[name] for r in watched.rows())}
    # The others are known of steps with prompts alone, or without them.
    assert {"context_tokens", "host_gap_s", "refused"} <= empty <= named


def test_what_is_known_later_is_no_longer_missing(plugin: ModuleType) -> None:
    watched = Watched(plugin, Loop(), arrived=True)
    loop = watched.loop
    loop.arrive(Req("a", tokens=3))
    loop.rounds(6)
    assert "arrival_lag" in watched.told.missing
    late = Req("b", tokens=3)
    late.time_stats.llmtop_arrived = loop.time
    loop.arrive(late)
    loop.rounds(6)
    assert set(watched.told.missing) == {"refused"}


class Pieces(Loop):
    """The prompt of the request "long" is computed in pieces, which end with nobody's token."""

    def get_next_batch_to_run(self) -> Any:
        batch = super().get_next_batch_to_run()
        if batch is not None and batch.forward_mode.is_extend():
            batch.chunked_req = next(r for r in batch.reqs if r.rid == "long")
            vars(self)["chunked_req"] = batch.chunked_req
        return batch

    def abort_request(self, request: Any) -> None:
        self._pending_chunked_abort_req = self.chunked_req


@pytest.mark.parametrize("cut", [False, True], ids=["goes on", "cut short"])
def test_a_piece_of_a_prompt_takes_no_token_from_others(plugin: ModuleType, cut: bool) -> None:
    watched = Watched(plugin, Pieces())
    long = Req("long", tokens=9)
    watched.loop.arrive(Req("short", tokens=2), long)
    watched.loop.round()
    long.finished_reason = Finish("abort") if cut else None
    watched.loop.rounds(4)
    assert watched.rows()[0]["output_tokens"] == 1


def test_one_without_a_token_that_ends_in_its_prompt_is_an_error(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FinishAbort:
        def __init__(self, message: str, status_code: int) -> None:
            self.message, self.status_code = message, status_code

    batches = ModuleType("sglang.srt.managers.schedule_batch")
    batches.FINISH_ABORT = FinishAbort  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, batches.__name__, batches)
    watched = Watched(plugin, Pieces())
    long = Req("long", tokens=9, discard_output_reason=None)
    watched.loop.arrive(long)
    watched.loop.round()
    done, _, _ = watched.told.abort(["long"], "ann@pts/3", "too long")
    assert done == ["long"]
    reason = vars(long)["discard_output_reason"]
    assert reason.status_code == 503 and "ann@pts/3" in reason.message
