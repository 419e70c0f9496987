"""The inside of an engine over its socket: the half that runs in the engine's process."""

from __future__ import annotations

import base64
import importlib
import json
import logging
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.core.latencies import LatencyHistogram, bucket_of
from llmtop.engines.core.steps import COLUMNS
from llmtop.engines.vllm.adapter import PLUGIN_FOLDERS

LOG = logging.getLogger("quiet")
MODULES = ("introspection", "latency_histogram", "request_table", "step_boundary", "step_ring")


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules of llmtop_live, as an engine imports them: from PYTHONPATH."""
    monkeypatch.syspath_prepend(str(PLUGIN_FOLDERS[1]))
    names = (*MODULES, "socket_server", "tunables")
    yield SimpleNamespace(**{n: importlib.import_module(f"llmtop_live.{n}") for n in names})
    for name in [name for name in sys.modules if name.startswith("llmtop_live")]:
        del sys.modules[name]


@pytest.fixture
def ask(live: Any) -> Any:
    """Asks an engine with this introspection."""
    tunables = live.tunables.Tunables("vllm", "1.0", 4711, [], lambda: (5, 2))

    def ask(introspection: Any, **request: Any) -> Any:
        line = json.dumps(request).encode()
        answer = live.socket_server.answer(tunables, line, LOG, introspection)
        return json.loads(json.dumps(answer))

    return ask


@pytest.fixture
def inside(live: Any) -> Any:
    return live.introspection.Introspection(LOG, rank=1, clock=lambda: 99.0)


def record(ring: Any, times: int, **known: float) -> None:
    columns = sys.modules["llmtop_live.step_ring"].COLUMNS[1:]
    for _ in range(times):
        ring.record(*(known.get(name, float("nan")) for name in columns))


def test_the_ring_has_the_columns_that_llmtop_reads(live: Any) -> None:
    assert live.step_ring.COLUMNS == COLUMNS


def rows(answer: Any) -> list[dict[str, float]]:
    width = len(answer["columns"])
    data = base64.b64decode(answer["data"])
    assert len(data) == answer["rows"] * width * 8
    found = struct.iter_unpack(f"<{width}d", data)
    return [dict(zip(answer["columns"], row, strict=True)) for row in found]


def sequence(answer: Any) -> list[int]:
    return [int(row["seq"]) for row in rows(answer)]


def test_steps_since_a_number_and_the_newest(live: Any, inside: Any, ask: Any) -> None:
    ring = inside.steps = live.step_ring.StepRing()
    record(ring, 5, end=12.5, running=3)
    answer = ask(inside, op="steps", since=2)
    assert (answer["ok"], answer["protocol"], answer["rank"], answer["now"]) == (True, 2, 1, 99.0)
    assert (answer["next"], answer["lost"], answer["boot"]) == (6, 0, ring.boot)
    assert sequence(answer) == [3, 4, 5]
    assert (rows(answer)[0]["end"], rows(answer)[0]["running"]) == (12.5, 3)
    assert sequence(ask(inside, op="steps", since=None, limit=2)) == [4, 5]
    assert sequence(ask(inside, op="steps", since=0, limit=2)) == [1, 2]  # the oldest: ask again
    assert sequence(ask(inside, op="steps", since=5)) == []
    assert ask(inside, op="steps", since=900)["lost"] == 0


def test_steps_that_were_overwritten_are_counted(live: Any, inside: Any, ask: Any) -> None:
    ring = inside.steps = live.step_ring.StepRing(capacity=8)
    record(ring, 20)
    answer = ask(inside, op="steps", since=3)
    assert sequence(answer) == [14, 15, 16, 17, 18, 19, 20]
    assert answer["lost"] == 10  # 4 to 13
    assert ask(inside, op="steps", since=None)["lost"] == 0


def test_a_full_answer_stays_within_its_limit(live: Any, inside: Any, ask: Any) -> None:
    inside.steps = live.step_ring.StepRing()
    record(inside.steps, 20_000)
    answer = ask(inside, op="steps", since=0, limit=99_999)
    assert answer["rows"] == 4096
    assert len(json.dumps(answer)) < 2 << 20


def test_a_reader_beside_the_writer_gets_whole_rows(live: Any) -> None:
    ring = live.step_ring.StepRing(capacity=64)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            record(ring, 50, running=7)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        since = 0
        for _ in range(300):
            answer = ring.read(since)
            found = sequence(answer)
            assert found == list(range(found[0], found[0] + len(found))) if found else True
            assert not found or found[0] == since + answer["lost"] + 1
            assert all(row["running"] == 7 for row in rows(answer))
            since = found[-1] if found else since
    finally:
        done.set()
        writer.join()


def test_latencies_have_the_buckets_of_the_client(live: Any, inside: Any, ask: Any) -> None:
    names = ("ttft", "itl")
    inside.latencies = live.latency_histogram.LatencyHistograms(names, {"ttft": "arrival"})
    for seconds in (0.0001, 0.25, 0.25, 7.0, -1.0, float("nan")):
        inside.latencies["ttft"].add(seconds)
    answer = ask(inside, op="latencies")
    told = answer["histograms"]["ttft"]
    assert (told["count"], told["min_s"], told["max_s"]) == (4, 0.0001, 7.0)
    assert told["buckets"] == [[bucket_of(0.0001), 1], [bucket_of(0.25), 2], [bucket_of(7.0), 1]]
    assert answer["base"] == {"ttft": "arrival"}
    assert answer["histograms"]["itl"]["count"] == 0
    found = LatencyHistogram(4, told["sum_s"], 0.0001, 7.0, {i: n for i, n in told["buckets"]})
    assert found.quantile(0.5) == pytest.approx(0.25, rel=0.01)


class Requests:
    """The view of a plugin over plain objects."""

    def __init__(self, running: Sequence[Any], waiting: Sequence[Any]) -> None:
        self._running, self._waiting = running, waiting
        self.looks = 0

    def running(self) -> Sequence[Any]:
        self.looks += 1
        return self._running

    def waiting(self) -> Sequence[Any]:
        return self._waiting

    def waiting_count(self) -> int:
        return len(self._waiting)

    def find(self, ident: str) -> Any:
        return next((r for r in (*self._running, *self._waiting) if r.id == ident), None)

    def find_all(self, idents: Sequence[str]) -> list[Any]:
        return [request for ident in idents if (request := self.find(ident)) is not None]

    def arrived(self, request: Any) -> float:
        return float(request.arrived)

    def tokens(self, request: Any) -> int:
        return int(request.tokens)

    def kv_blocks(self, request: Any) -> int:
        return int(request.tokens)

    def row(self, request: Any, now: float) -> dict[str, Any]:
        return {"id": request.id, "age_s": now - request.arrived}


def request(ident: str, arrived: float, tokens: int = 1) -> SimpleNamespace:
    return SimpleNamespace(id=ident, arrived=arrived, tokens=tokens)


@pytest.mark.parametrize(
    ("sort", "first"), [("age", "old"), ("kv", "big"), ("tokens", "queued"), ("wait", "queued")]
)
def test_requests_are_sorted_inside(inside: Any, ask: Any, sort: str, first: str) -> None:
    running = [request("big", 50, 800), request("old", 10, 20)]
    inside.view = Requests(running, [request("queued", 90, 900)])
    answer = ask(inside, op="requests", sort=sort, limit=2)
    assert (answer["running"], answer["waiting"], answer["now"]) == (2, 1, 99.0)
    assert len(answer["requests"]) == 2
    assert answer["requests"][0]["id"] == first


def test_a_long_queue_is_cut(inside: Any, ask: Any) -> None:
    inside.view = Requests([], [request(str(n), n) for n in range(100_000)])
    answer = ask(inside, op="requests", sort="tokens")
    assert (answer["waiting"], answer["waiting_looked_at"]) == (100_000, 2048)
    assert len(answer["requests"]) == 50
    (only,) = ask(inside, op="requests", ids=["99999"])["requests"]
    assert only["id"] == "99999"


def test_many_readers_cost_one_look(live: Any, ask: Any) -> None:
    inside = live.introspection.Introspection(LOG, monotonic=lambda: 5.0)
    view = inside.view = Requests([request("a", 1)], [])
    for _ in range(20):
        assert ask(inside, op="requests")["running"] == 1
    assert view.looks == 1


def test_an_abort_reports_each_id(inside: Any, ask: Any) -> None:
    heard = []

    def abort(ids: Sequence[str], by: str, reason: str) -> Any:
        heard.append((tuple(ids), by, reason))
        return ["a"], ["b"], [("c", "in another front end")]

    inside.abort = abort
    answer = ask(inside, op="abort", ids=["a", "b", "c", "a"], by="ann\x1b", reason="")
    assert heard == [(("a", "b", "c"), "ann?", "")]
    assert (answer["aborted"], answer["ended_before"]) == (["a"], ["b"])
    assert answer["refused"] == [{"id": "c", "reason": "in another front end"}]


def test_an_aborted_request_is_in_no_later_table(live: Any, ask: Any) -> None:
    inside = live.introspection.Introspection(LOG, monotonic=lambda: 5.0)
    running = [request("a", 1)]
    inside.view = Requests(running, [])

    def abort(ids: Sequence[str], by: str, reason: str) -> Any:
        running.clear()
        return ids, [], []

    inside.abort = abort
    assert ask(inside, op="requests")["running"] == 1
    ask(inside, op="abort", ids=["a"])
    assert ask(inside, op="requests")["running"] == 0


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "steps", "since": "x"},
        {"op": "steps", "since": 1e300},
        {"op": "steps", "limit": None},
        {"op": "requests", "sort": []},
        {"op": "requests", "ids": []},
        {"op": "requests", "ids": [1]},
        {"op": "abort"},
        {"op": "abort", "ids": ["x"] * 300},
        {"op": "abort", "ids": ["a"], "by": 1},
    ],
)
def test_a_wrong_request_gets_an_error(
    live: Any, inside: Any, ask: Any, request_: dict[str, Any]
) -> None:
    inside.steps = live.step_ring.StepRing()
    inside.view = Requests([], [])
    inside.abort = lambda *_: ([], [], [])
    answer = ask(inside, **request_)
    assert (answer["ok"], answer["protocol"]) == (False, 2)
    assert answer["error"]


def test_what_is_missing_is_named(live: Any, inside: Any, ask: Any) -> None:
    inside.steps = live.step_ring.StepRing()
    inside.missing["abort"] = "no way to end a request"
    state = ask(inside, op="get", protocol=2)
    assert (state["protocol"], state["role"], state["abilities"]) == (2, "engine", ["steps"])
    assert state["missing"] == {"abort": "no way to end a request"}
    answer = ask(inside, op="abort", ids=["a"])
    assert (answer["ok"], answer["missing"]) == (False, "abort")
    assert "no way to end a request" in answer["error"]


def test_older_clients_are_answered_in_their_protocol(inside: Any, ask: Any) -> None:
    assert ask(inside, op="get")["protocol"] == 1
    answer = ask(inside, op="set", changes={"nothing": 1})
    assert (answer["ok"], answer["protocol"]) == (True, 1)
    assert ask(None, op="steps") == {
        "ok": False,
        "protocol": 1,
        "error": "unknown op; there are get and set",
    }


def test_the_guard_switches_off_restores_and_reports(live: Any, inside: Any, ask: Any) -> None:
    restored = []
    inside.steps = live.step_ring.StepRing()
    inside.boundary = live.step_boundary.StepBoundary()
    inside.view = Requests([], [])
    inside.restore = [lambda: restored.append(1), lambda: 1 / 0, lambda: restored.append(2)]
    inside.switch_off(KeyError("slots"), "schedule()")
    inside.switch_off(ValueError("later"), "schedule()")
    assert restored == [1, 2]
    assert ask(inside, op="get", protocol=2)["abilities"] == []
    for op in ("steps", "requests"):
        assert "KeyError in llmtop's part of schedule()" in ask(inside, op=op)["error"]


def test_work_is_done_at_the_engines_boundary(live: Any) -> None:
    boundary = live.step_boundary.StepBoundary()
    idle = threading.Event()
    boundary.wake = idle.set
    threads = []

    def engine() -> None:
        idle.wait()
        threads.append(threading.current_thread())
        boundary.run()

    thread = threading.Thread(target=engine)
    thread.start()
    assert boundary.call(lambda: threading.current_thread(), 30.0) is thread
    thread.join()
    assert not boundary.attention


def test_an_engine_that_makes_no_step_is_reported(live: Any) -> None:
    boundary = live.step_boundary.StepBoundary()
    done: list[int] = []
    with pytest.raises(live.step_boundary.NotDone, match="made no step"):
        boundary.call(lambda: done.append(1), 0.001)
    boundary.run()
    assert not done  # it was taken back
    boundary.close("switched off")
    with pytest.raises(live.step_boundary.NotDone, match="switched off"):
        boundary.call(lambda: None)


def test_an_exception_at_the_boundary_reaches_asker_and_guard(live: Any) -> None:
    boundary = live.step_boundary.StepBoundary()
    errors = []

    def asker() -> None:
        try:
            boundary.call(lambda: 1 / 0, 30.0)
        except live.step_boundary.NotDone as error:
            errors.append(str(error))

    thread = threading.Thread(target=asker)
    boundary.wake = (woken := threading.Event()).set
    thread.start()
    woken.wait()
    with pytest.raises(ZeroDivisionError):
        boundary.run()
    thread.join()
    assert errors == ["ZeroDivisionError: division by zero"]
