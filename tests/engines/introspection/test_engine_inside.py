"""The inside of an engine over its sockets: gaps, restarts, silence, ranks, front ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.latencies import NAMES, bucket_of
from llmtop.engines.core.live_protocol import LiveError, LiveGone
from llmtop.engines.introspection import process_inside
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.introspection.errors import NotShown, OlderPlugin
from tests.engines.introspection.step_answers import Ring, rows, steps_answer
from tests.fake_live_server import Act, FakeLiveServer, Reply

OLD = {"ok": False, "protocol": 1, "error": "unknown op; there are get and set"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "live"


def inside(path: Path, *expected: int, timeout_s: float = 30.0) -> EngineInside:
    return EngineInside(path, expected, wall=lambda: 50.0, timeout_s=timeout_s)


async def opened(stack: AsyncExitStack, path: Path, sockets: Mapping[str, Reply]) -> None:
    for suffix, reply in sockets.items():
        place = path.with_name(path.name + suffix)
        await stack.enter_async_context(FakeLiveServer(place, [reply]))


async def test_each_look_brings_the_steps_since_the_one_before(path: Path) -> None:
    ring = Ring()
    ring.last = 30
    async with FakeLiveServer(path, [ring]):
        engine = inside(path)
        first = await engine.steps(newest=10)
        assert [step.seq for step in first.steps] == list(range(21, 31))
        ring.last = 33
        assert [step.seq for step in (await engine.steps()).steps] == [31, 32, 33]
        nothing = await engine.steps()
    assert (nothing.steps, nothing.lost, nothing.restarted) == ((), 0, False)
    assert (nothing.ranks, nothing.time) == (1, 50.0)


async def test_an_overrun_ring_is_a_gap(path: Path) -> None:
    ring = Ring(capacity=20)
    ring.last = 5
    async with FakeLiveServer(path, [ring]):
        engine = inside(path)
        await engine.steps()
        ring.last = 100
        found = await engine.steps()
        assert [step.seq for step in found.steps] == list(range(81, 101))
        assert found.lost == 75  # 6 to 80
        assert (await engine.steps()).lost == 0


@pytest.mark.parametrize("since_restart", [3, 60])
async def test_a_restarted_engine_begins_again(path: Path, since_restart: int) -> None:
    ring = Ring()
    ring.last = 40
    async with FakeLiveServer(path, [ring]):
        engine = inside(path)
        await engine.steps()
        ring.boot, ring.last = "two", since_restart
        found = await engine.steps()
        assert found.restarted
        assert [step.seq for step in found.steps] == list(range(1, since_restart + 1))
        assert found.lost == 0
        assert not (await engine.steps()).restarted


async def test_a_spoilt_step_is_an_error_once_and_then_a_gap(path: Path) -> None:
    ring, spoilt = Ring(), [False]

    def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
        told = dict(ring(request))
        seqs = range(told["next"] - told["rows"], told["next"])
        return {**told, "data": rows(seqs, output_tokens=-1)} if spoilt[0] else told

    async with FakeLiveServer(path, [answer]):
        engine = inside(path)
        ring.last = 5
        await engine.steps()
        ring.last, spoilt[0] = 8, True
        with pytest.raises(LiveError, match="invalid data"):
            await engine.steps()
        ring.last, spoilt[0] = 10, False
        found = await engine.steps()
        assert ([step.seq for step in found.steps], found.lost) == ([9, 10], 3)
        ring.last = 11
        found = await engine.steps()
        assert ([step.seq for step in found.steps], found.lost) == ([11], 0)


async def test_more_steps_than_one_answer_holds(path: Path) -> None:
    ring = Ring(capacity=20_000)
    ring.last = 1
    async with FakeLiveServer(path, [ring]):
        engine = inside(path)
        await engine.steps()
        ring.last = 9_000
        found = await engine.steps()
    assert [step.seq for step in found.steps] == list(range(2, 9_001))


async def test_a_clock_that_is_set_back_changes_no_order(path: Path) -> None:
    back = steps_answer(1, 4)
    before = steps_answer(1, 2)
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": before, ".1": back})
        found = await inside(path).steps()
    for rank in (0, 1):
        numbers = [step.seq for step in found.steps if step.rank == rank]
        assert numbers == sorted(numbers)
    assert found.ranks == 2


@pytest.mark.parametrize("ask", ["steps", "latencies", "requests"])
async def test_an_older_plugin_is_named(path: Path, ask: str) -> None:
    async with FakeLiveServer(path, [OLD]):
        with pytest.raises(OlderPlugin, match="older than this llmtop") as raised:
            await getattr(inside(path), ask)()
    assert "restart the engine to see its steps" in (raised.value.hint or "")


async def test_what_is_not_shown_has_a_reason(path: Path) -> None:
    told = {"ok": False, "protocol": 2, "error": "no abort here: no way", "missing": "abort"}
    async with FakeLiveServer(path, [told]):
        with pytest.raises(NotShown, match="no abort here: no way") as raised:
            await inside(path).requests()
    assert raised.value.ability == "abort"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Act.HANG_UP, "closed the connection"),
        (b'{"ok": true, "protocol": 2, "dat', "did not answer"),
        (b"\xff\x00\n", "invalid data"),
        (b"[]\n", "invalid data"),
        ({"ok": True}, "another protocol"),
        ({"ok": True, "protocol": 2}, "invalid data"),
        (b"x" * (process_inside.ANSWER_LIMIT + 9) + b"\n", "a line longer than"),
        (Act.SILENCE, "did not answer"),
    ],
)
async def test_a_socket_that_is_no_use_is_an_error(path: Path, reply: Reply, words: str) -> None:
    timeout_s = 0.2 if "did not" in words else 30.0
    async with FakeLiveServer(path, [reply]):
        with pytest.raises(LiveError, match=words):
            await inside(path, timeout_s=timeout_s).steps()


async def test_an_engine_that_is_gone(path: Path) -> None:
    with pytest.raises(LiveGone):
        await inside(path).steps()


async def test_a_silent_rank_is_named_and_the_others_are_shown(path: Path) -> None:
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": steps_answer(1, 3), ".1": OLD})
        found = await inside(path, 0, 1, 2).steps()
    assert (len(found.steps), found.ranks) == (3, 1)
    assert "older" in found.missing["rank 1"]
    assert "gone" in found.missing["rank 2"]


def histogram(*seconds: float) -> dict[str, Any]:
    return {
        "count": len(seconds),
        "sum_s": sum(seconds),
        "min_s": min(seconds, default=None),
        "max_s": max(seconds, default=None),
        "buckets": list(Counter(map(bucket_of, seconds)).items()),
    }


def latencies(boot: str, **names: dict[str, Any]) -> dict[str, Any]:
    return {
        "ok": True,
        "protocol": 2,
        "boot": boot,
        "histograms": names,
        "missing": {"e2e": "no", "abort": "no"},
    }


async def test_latencies_of_ranks_are_merged_and_front_ends_know_better(path: Path) -> None:
    ranks = {
        "": latencies("a", ttft=histogram(0.1), itl=histogram(0.01)),
        ".1": latencies("b", ttft=histogram(0.2), queue=histogram(0.3)),
    }
    fronts = {
        ".front.0": latencies("c", ttft=histogram(0.5, 0.5), arrival_lag=histogram(0.01)),
        ".front.1": latencies("d", ttft=histogram(0.6), arrival_lag=histogram(0.02)),
    }
    async with AsyncExitStack() as stack:
        await opened(stack, path, {**ranks, **fronts})
        found = await inside(path).latencies()
    assert found.histograms["ttft"].count == 3
    assert found.histograms["ttft"].min_s == 0.5
    assert found.histograms["arrival_lag"].count == 2
    assert "queue" not in found.histograms  # one rank of two
    assert (found.ranks, found.boots) == (2, ("a", "b", "c", "d"))
    assert found.missing["e2e"] == "no"
    assert found.missing["queue"] == "not measured on each process of this engine"
    assert set(found.missing) == {*NAMES} - {"ttft", "arrival_lag"}


async def test_a_latency_that_stays_empty_is_named(path: Path) -> None:
    none = histogram()
    rank = latencies("a", ttft=histogram(0.1), arrival_lag=none, prefill=none, output_lag=none)
    rank["missing"] |= {"arrival_lag": "not brought", "output_lag": "others measure it"}
    front = latencies("c", output_lag=none, tpot=none)
    front["missing"] = {"tpot": "not told"}
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": rank, ".front.0": front})
        found = await inside(path).latencies()
    assert set(found.histograms) == {"ttft", "prefill", "output_lag"}  # two had no request yet
    assert found.missing["arrival_lag"] == "not brought"
    assert found.missing["tpot"] == "not told"
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": latencies("a", ttft=histogram(0.1))})
        found = await inside(path).latencies()
    assert found.missing["output_lag"] == "no front end of this engine shows internal data"


def table(running: int, *rows: dict[str, Any]) -> dict[str, Any]:
    plain = {"state": "running", "phase": "decode"}
    return {
        "ok": True,
        "protocol": 2,
        "now": 9.0,
        "running": running,
        "waiting": 1,
        "step": 4,
        "requests": [{**plain, **row} for row in rows],
    }


async def test_requests_of_ranks_are_sorted_together(path: Path) -> None:
    first = table(5, {"id": "old", "age_s": 9.0, "kv_blocks": 1})
    second = table(2, {"id": "big", "age_s": 4.0, "kv_blocks": 90}, {"id": "new", "age_s": 1.0})
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": first, ".1": second})
        by_age = await inside(path).requests("age")
        by_kv = await inside(path).requests("kv", 2)
    assert [row.id for row in by_age.rows] == ["old", "big", "new"]
    assert [(row.id, row.rank) for row in by_kv.rows] == [("big", 1), ("old", 0)]
    assert (by_age.running, by_age.waiting, by_age.step) == (7, 2, None)


class Holder:
    """The end of a process that holds some requests."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)
        self.heard: list[list[str]] = []

    def __call__(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.heard.append(request["ids"])
        mine = [ident for ident in request["ids"] if ident in self.ids]
        self.ids -= set(mine)
        before = [ident for ident in request["ids"] if ident not in mine]
        about = {"ok": True, "protocol": 2}
        return {**about, "aborted": mine, "ended_before": before, "refused": []}


async def test_an_abort_reaches_whoever_holds_the_request(path: Path) -> None:
    zero, one, front = Holder("a", "b"), Holder("c"), Holder("b")
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": zero, ".1": one, ".front.0": front})
        done = await inside(path).abort(["a", "b", "c", "gone", "a"], "ann")
    assert done.aborted == ("a", "b", "c")
    assert (done.ended_before, done.refused) == (("gone",), ())
    assert front.heard == [["a", "b", "c", "gone"]]
    assert zero.heard == one.heard == [["a", "c", "gone"]]  # b ended without a false metric


async def test_what_no_front_end_has_has_ended_where_ranks_abort_nothing(path: Path) -> None:
    told = {"ok": False, "protocol": 2, "error": "no abort here", "missing": "abort"}
    async with AsyncExitStack() as stack:
        front = {"ok": True, "protocol": 2, "rank": 0, "aborted": ["a"], "refused": []}
        front |= {"ended_before": ["gone"]}
        await opened(stack, path, {"": told, ".front.0": front})
        done = await inside(path).abort(["a", "gone"], "ann")
        assert (done.aborted, done.ended_before, done.refused) == (("a",), ("gone",), ())
        await opened(stack, path, {".front.1": {**told, "missing": None}})
        done = await inside(path).abort(["a", "gone"], "ann")
    assert (done.aborted, done.ended_before) == (("a",), ())
    assert "front end 1 did not answer, and may hold it" in done.refused[0][1]


async def test_front_ends_that_abort_nothing_hold_nothing(path: Path) -> None:
    told = {"ok": False, "protocol": 2, "error": "no abort here", "missing": "abort"}
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": Holder("a"), ".front.0": told})
        done = await inside(path).abort(["a", "gone"], "ann")
    assert (done.aborted, done.ended_before, done.refused) == (("a",), ("gone",), ())


async def test_an_abort_with_a_silent_rank_claims_nothing(path: Path) -> None:
    async with AsyncExitStack() as stack:
        await opened(stack, path, {"": Holder("a"), ".1": OLD})
        done = await inside(path).abort(["a", "b"], "ann")
    assert (done.aborted, done.ended_before) == (("a",), ())
    ((ident, reason),) = done.refused
    assert ident == "b"
    assert "rank 1 did not answer" in reason


async def test_abilities_of_all_processes(path: Path) -> None:
    def about(role: str, *abilities: str) -> dict[str, Any]:
        missing = {"abort": "not here", "launch_s": "not seen"}
        told = {"ok": True, "protocol": 2, "role": role, "abilities": list(abilities)}
        return {**told, "missing": missing}

    async with AsyncExitStack() as stack:
        await opened(
            stack,
            path,
            {"": about("engine", "steps", "nonsense"), ".front.0": about("front_end", "abort")},
        )
        found = await inside(path).abilities()
    assert found.abilities == {"steps", "abort"}
    assert found.missing == {"launch_s": "not seen"}
    assert (found.ranks, found.front_ends) == (1, 1)
