"""The whole load generator: worker processes against a server that streams at a known pace."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.core.results import MAX_GAPS, Fate, LoadResult, Remark, RequestRecord
from llmtop.loadgen.workers.load import Load, LoadFailed
from llmtop.loadgen.workers.messages import MAX_PACKET, Records, encode
from llmtop.loadgen.workers.worker import BATCH
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan, Prompts, Target
from llmtop.values import replace
from tests.quirky_server import Quirk, serving

pytestmark = pytest.mark.process

SHORT = Prompts(prompt_tokens=(16, 16), output_tokens=(5, 5))
DEADLINE_S = 60.0  # far beyond what any of this needs: only a hang gets there


def wait_for(what: Callable[[], object], why: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def run(url: str, plan: Plan, model: str = "m", timeout_s: float = 60.0) -> LoadResult:
    with Load(Target(url, model), SHORT, workers=1, timeout_s=timeout_s) as load:
        load.start(plan)
        wait_for(lambda: load.finished, "the load did not finish")
        return load.result()


def test_a_closed_loop_measures_what_the_server_does() -> None:
    records: list[RequestRecord] = []
    with serving(ttft_s=0.1, itl_s=0.02) as (server, url):
        prompts = Prompts(output_tokens=(11, 11))
        with Load(Target(url, "m"), prompts, workers=1, on_record=records.append) as load:
            load.start(Plan(shape="hold 8 for 1s"))
            wait_for(lambda: load.finished, "the load did not finish")
            result = load.result()
            assert load.clock == "kernel"
        assert server.requests == result.ok >= 8
        assert server.connections == 8  # each stream keeps its connection
    assert (result.failed, result.cut, result.errors) == (0, 0, {})
    assert result.output_tokens == 11 * result.ok
    assert result.ttft.n == result.ok
    assert result.itl.n == 10 * result.ok
    # The server never sends early, and a crowded machine may make it late, so these are one-sided.
    assert result.ttft.p50 is not None and 0.1 <= result.ttft.p50 < 1
    assert result.e2e.p50 is not None and 0.28 < result.e2e.p50 < 3
    assert result.tpot.p50 is not None and 0.01 < result.tpot.p50 < 0.2
    assert len(records) == result.ok
    for record in records:
        assert record.sent is not None and record.first is not None and record.last is not None
        assert record.intended <= record.sent <= record.first < record.last
        assert (record.tokens, record.counted, record.prompt_tokens) == (11, False, 128)


def test_the_api_key_travels_in_the_header_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Load(Target(f"http://127.0.0.1:{port}", "m", api_key="sk-secret"), workers=1) as load:
            load.start(Plan())
            for pid in load.pids:
                assert "sk-secret" not in " ".join(psutil.Process(pid).cmdline())
            listener.settimeout(DEADLINE_S)
            connection, _ = listener.accept()
            connection.settimeout(DEADLINE_S)
            head = connection.recv(1000)
            assert b"Authorization: Bearer sk-secret\r\n" in head
            assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n")
            connection.close()


@pytest.mark.parametrize("rid", [False, True])
def test_each_request_has_an_id_that_the_engine_and_the_record_share(rid: bool) -> None:
    records: list[RequestRecord] = []
    with serving(0.0, 0.0) as (server, url):
        target = Target(url, "m", rid=rid)
        with Load(target, SHORT, workers=2, on_record=records.append) as load:
            load.start(Plan(shape="hold 4"))
            wait_for(lambda: server.requests >= 20, "no requests come")
            load.stop()
            wait_for(lambda: load.finished, "the load did not drain")
            ids, bodies = list(server.ids), list(server.bodies)
    told = [record.request_id for record in records]
    assert len(set(told)) == len(told) and set(ids) <= set(told)
    # One of them that begins another would end that one too, where SGLang is asked to end it.
    assert len(set(map(len, told))) == 1
    assert all(one.startswith(f"{load.run}-") for one in told)
    in_body = [json.loads(body).get("rid", "") for body in bodies]
    assert in_body == (ids if rid else [""] * len(ids))


def test_two_workers_share_one_load() -> None:
    with serving(0.02, 0.005) as (server, url), Load(Target(url, "m"), SHORT, workers=2) as load:
        load.start(Plan(shape="hold 5"))
        wait_for(lambda: server.open_streams == 5, "five streams were asked for")
        wait_for(lambda: load.snapshot().ok >= 50, "no requests end")
        snapshot = load.snapshot()
        assert snapshot.in_flight <= 5 and snapshot.asked == 5
        assert len({psutil.Process(pid).pid for pid in load.pids}) == 2
        load.stop()
        wait_for(lambda: load.finished, "the load did not drain")
        assert load.result().ok == server.requests


@pytest.mark.parametrize("arrival", list(Arrival))
def test_an_open_loop_sends_at_its_rate(arrival: Arrival) -> None:
    with serving(0.02, 0.001) as (server, url):
        result = run(url, Plan(Loop.OPEN, "hold 200 for 1s", seed=3, arrival=arrival))
        assert result.ok == server.requests
    slack = 1 if arrival is Arrival.CONSTANT else 60
    assert abs(result.ok - 200) <= slack
    assert result.health.lateness is not None and result.health.lateness.n == result.ok


def test_steering_while_it_runs() -> None:
    with serving(0.01, 0.01) as (server, url), Load(Target(url, "m"), SHORT, workers=1) as load:
        load.start(Plan(shape="hold 4"))
        wait_for(lambda: load.snapshot().in_flight == 4, "the start")
        load.more()
        assert load.snapshot().asked == 5
        wait_for(lambda: load.snapshot().in_flight == 5, "more")
        load.burst(12, 1.5)
        wait_for(lambda: load.snapshot().in_flight == 12, "burst")
        wait_for(lambda: load.snapshot().asked == 5, "the end of the burst")
        load.less()
        load.less()
        wait_for(lambda: load.snapshot().in_flight == 3, "less")
        snapshot = load.snapshot()
        assert snapshot.held and snapshot.running and snapshot.loop == "closed"
        load.resume()
        assert load.snapshot().asked == 4
        load.set_plan(Plan(shape="hold 2"))
        wait_for(lambda: load.snapshot().in_flight == 2, "a new plan")
        load.switch_loop()
        wait_for(lambda: load.snapshot().loop == "open", "the other loop")
        before = server.requests
        wait_for(lambda: server.requests > before + 3, "sends in the open loop")
        load.stop()
        wait_for(lambda: load.finished, "drain")
        result = load.result()
        assert (result.failed, result.cut) == (0, 0)
        load.more()
        assert not load.finished
        before = server.requests
        wait_for(lambda: server.requests > before, "it begins again after a stop")


@pytest.mark.more
def test_switching_the_loop_under_a_burst_holds_what_was_achieved_before_it() -> None:
    # So slow a server that ten times the streams are ten times the rate on a crowded machine too.
    with serving(0.1, 0.02) as (_, url), Load(Target(url, "m"), SHORT, workers=1) as load:
        load.start(Plan(shape="hold 4"))
        wait_for(lambda: load.snapshot().ok > 20, "the start")
        load.burst(40, 600)
        wait_for(lambda: load.snapshot().in_flight == 40, "burst")
        load.burst(30, 600)  # another one on top forgets nothing
        before = load.result().ok
        wait_for(lambda: load.result().ok > before + 200, "the rate of a burst")
        at_burst = load.snapshot().requests_per_s
        load.switch_loop()
        snapshot = load.snapshot()
        assert snapshot.loop == "open" and at_burst is not None
        assert 1 <= snapshot.asked < at_burst / 2


@pytest.mark.parametrize("drain", [True, False])
def test_stop_drains_or_cuts(drain: bool) -> None:
    with serving(0.05, 0.1) as (server, url), Load(Target(url, "m"), SHORT, workers=1) as load:
        load.start(Plan(shape="hold 6"))
        wait_for(lambda: server.open_streams == 6, "the start")
        asked = server.requests
        load.stop(drain=drain)
        wait_for(lambda: load.finished, "the load did not end")
        result = load.result()
        assert (result.ok, result.failed, result.cut) == ((6, 0, 0) if drain else (0, 0, 6))
        assert server.requests == asked
        wait_for(lambda: server.open_streams == 0, "a stream was left open")
        assert load.snapshot().oldest_wait_s is None


EXPECTED = {
    Quirk.STALL: "time-out after 1 s",
    Quirk.STALL_LATER: "time-out after 1 s",
    Quirk.RESET: "connection reset",
    Quirk.CLOSE: "closed before the answer",
    Quirk.HALF: "closed in the middle of the answer",
    Quirk.BUSY: "HTTP 429: too many requests",
    Quirk.BUSY_FOR_LONG: "HTTP 429: come again",
    Quirk.BROKEN: "HTTP 500: out of memory",
    Quirk.ENDLESS_LINE: "a line in the stream is too long",
    Quirk.ENDLESS_HEAD: "the headers are too long",
    Quirk.ENDLESS_ERROR: "HTTP 500: aaa",
    Quirk.NONSENSE: "not HTTP",
    Quirk.NOISE: "not HTTP",
    Quirk.PINGS: "time-out after 1 s",
    Quirk.NO_USAGE: "[DONE] without the requested usage",
    Quirk.ERROR_EVENT: "error in the stream: the engine died",
    Quirk.WHOLE: "answered in one piece instead of a stream",
    Quirk.ROLE_FIRST: "",
    Quirk.CLOSE_DELIMITED: "",
    Quirk.SHORT_KEEP_ALIVE: "",
}


@pytest.mark.parametrize("quirk", list(Quirk))
def test_a_server_that_misbehaves_costs_an_error_row(quirk: Quirk) -> None:
    with serving(0.01, 0.005) as (server, url):
        result = run(url, Plan(shape="hold 3 for 50ms"), model=quirk.value, timeout_s=1.0)
        wait_for(lambda: server.open_streams == 0 or quirk in _STALLS, "the stream was let go")
    if expected := EXPECTED[quirk]:
        refused = expected.startswith("HTTP 429")
        assert (result.ok, result.refused, result.failed) == ((0, 3, 0) if refused else (0, 0, 3))
        (error,) = result.errors
        assert error.startswith(expected)
    else:
        assert result.ok >= 3 and result.failed == 0
        assert result.ttft.p50 is not None


_STALLS = (Quirk.STALL, Quirk.STALL_LATER)


def test_a_server_that_asks_for_patience_is_neither_waited_for_nor_tried_again() -> None:
    records: list[RequestRecord] = []
    with serving() as (server, url):
        target = Target(url, Quirk.BUSY_FOR_LONG.value)
        with Load(target, SHORT, workers=1, on_record=records.append) as load:
            load.start(Plan(shape="hold 1"))
            # An hour was asked for; a refused stream rests for half a second.
            wait_for(lambda: load.snapshot().refused >= 3, "refusals")
            load.stop()
            wait_for(lambda: load.finished, "the load did not end")
        assert server.requests == len(records)
    gaps = [b.intended - a.intended for a, b in pairwise(records)]
    assert all(gap >= 0.5 for gap in gaps)


@pytest.mark.more
@pytest.mark.parametrize("quirk", [Quirk.ENDLESS_ERROR, Quirk.NOISE, Quirk.PINGS])
def test_a_gigabyte_of_nonsense_is_not_kept(quirk: Quirk) -> None:
    with serving() as (server, url):
        target = Target(url, quirk.value)
        with Load(target, SHORT, workers=1, timeout_s=0.5) as load:
            load.start(Plan(shape="hold 8"))
            wait_for(lambda: load.snapshot().failed >= 24, "failures")
            (pid,) = load.pids
            assert psutil.Process(pid).memory_info().rss < 60 << 20
        assert server.written < 500 << 20


def test_a_role_without_content_does_not_count_as_the_first_token() -> None:
    with serving(0.3, 0.001) as (_, url):
        target = Target(url, Quirk.ROLE_FIRST.value, chat=True)
        with Load(target, SHORT, workers=1) as load:
            load.start(Plan(shape="hold 1 for 100ms"))
            wait_for(lambda: load.finished, "the load did not finish")
            result = load.result()
    assert result.ttft.p50 is not None and result.ttft.p50 >= 0.3


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run(f"http://localhost:{port}", Plan(shape="hold 2 for 100ms"))
    assert result.ok == 0 and result.failed == 2
    assert result.errors == {"connection refused": 2}


def test_a_shape_or_a_target_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError):
        Load(Target("ftp://127.0.0.1", "m"))
    with pytest.raises(UsageError, match="API key"):
        Load(Target("http://127.0.0.1:1", "m", api_key="sk-1\r\nX-Evil: 1"))
    with Load(Target("http://127.0.0.1:1", "m"), workers=1) as load:
        with pytest.raises(UsageError, match="rampage"):
            load.start(Plan(shape="rampage 3"))
        with pytest.raises(LlmtopError, match="not been started"):
            load.more()


@pytest.mark.more
def test_what_is_too_long_for_a_worker_is_told_and_ends_none() -> None:
    endless = "hold 1 for 1s, " * 12_000 + "hold 1"
    with (
        Load(Target("http://127.0.0.1:1", "m" * 200_000), workers=1) as load,
        pytest.raises(UsageError, match="above 131,072"),
    ):
        load.start(Plan())
    with serving(0.01, 0.01) as (_, url), Load(Target(url, "m"), SHORT, workers=1) as load:
        load.start(Plan(shape="hold 2"))
        with pytest.raises(UsageError, match="above 131,072"):
            load.set_plan(Plan(shape=endless))
        ok = load.snapshot().ok
        wait_for(lambda: load.snapshot().ok > ok + 3, "the load that was there before goes on")
        assert load.snapshot().asked == 2 and not load.troubles


def test_a_name_that_stands_for_nothing_is_told_at_the_start() -> None:
    load = Load(Target("http://no..such.host:80", "m"), workers=1)  # nobody is asked about this
    with pytest.raises(LoadFailed, match=r"no\.\.such\.host is not a host name"):
        load.start(Plan())
    load.close()


def test_a_worker_that_dies_is_reported_and_nothing_hangs() -> None:
    with serving(0.05, 5.0) as (server, url), Load(Target(url, "m"), SHORT, workers=2) as load:
        load.start(Plan(shape="hold 4"))
        wait_for(lambda: server.open_streams == 4, "the start")
        wait_for(lambda: load.snapshot().in_flight == 4, "the start, as the workers see it")
        os.kill(load.pids[0], signal.SIGKILL)
        wait_for(lambda: load.snapshot().errors, "the death was not noticed")
        snapshot = load.snapshot()
        assert snapshot.errors == {"a load worker ended (signal 9)": 1}
        assert (snapshot.in_flight, snapshot.failed) == (2, 2)
        assert snapshot.health.verdict == "client-bound, because 1 of its workers ended"
        os.kill(load.pids[1], signal.SIGKILL)
        wait_for(lambda: load.finished, "a load without workers is over")
        assert load.result().failed == 4


_OWNER = """
import sys, time
from llmtop.loadgen.workload.plan import Plan, Prompts, Target
from llmtop.loadgen.workers.load import Load
load = Load(Target(sys.argv[1], "m"), Prompts(), workers=2)
load.start(Plan(shape="hold 6"))
print(*load.pids, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_when_the_owner_is_killed() -> None:
    shared_before = set(Path("/dev/shm").iterdir())
    with serving(0.05, 5.0) as (server, url):
        owner = subprocess.Popen(
            [sys.executable, "-c", _OWNER, url], stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        try:
            workers = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
            assert len(workers) == 2
            wait_for(lambda: server.open_streams == 6, "the start")
        finally:
            owner.kill()
            owner.wait()
            owner.stdout.close()
        wait_for(lambda: all(_gone(worker) for worker in workers), "a worker outlived its owner")
        wait_for(lambda: server.connections == 6, "all connections were made")
    assert set(Path("/dev/shm").iterdir()) <= shared_before


def _gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody may be there to wait for it
    except psutil.NoSuchProcess:
        return True


def test_close_ends_the_workers_in_the_middle_of_it() -> None:
    with serving(0.05, 5.0) as (server, url):
        load = Load(Target(url, "m"), SHORT, workers=2)
        load.start(Plan(shape="hold 4"))
        wait_for(lambda: server.open_streams == 4, "the start")
        pids = load.pids
        load.close()
        load.close()
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert load.finished
        assert load.result().ok == 0
        assert load.snapshot().sent == 4


def test_records_of_every_fate_cross_over() -> None:
    records: list[RequestRecord] = []
    with serving(0.01, 0.05) as (server, url):
        target = Target(url, "m")
        with Load(target, SHORT, workers=1, on_record=records.append) as load:
            load.start(Plan(shape="hold 3"))
            wait_for(lambda: load.snapshot().ok >= 3, "requests end")
            wait_for(lambda: server.open_streams == 3, "others run")
            load.stop(drain=False)
            wait_for(lambda: load.finished, "cut")
            result, sent = load.result(), load.snapshot().sent
    assert result.ok == sum(record.fate is Fate.OK for record in records)
    assert result.cut == sum(record.fate is Fate.CUT for record in records) > 0
    assert len(records) == sent >= server.requests  # one that is cut may not have come there
    assert all(record.gaps_us is None for record in records)  # which nobody asked for


def test_a_packet_holds_the_longest_answers_that_it_may_have_to() -> None:
    slow = 10_000_000  # microseconds: five bytes
    plain = RequestRecord(
        1e3, 1e3, 1e3, 1e3, 1e3, 10**6, 10**6, False, Fate.FAILED, "x" * 120, 1e3, 99, 10**6,
        ended=1e3, send_error=1e3, first_error=1e3, last_error=1e3, chunks=10**6,
        request_id="x" * 40, remarks=tuple(Remark),
    )  # fmt: skip
    worst = [
        *[plain] * (BATCH - 2),
        replace(plain, gaps_us=(slow,) * (MAX_GAPS - 1)),
        replace(plain, gaps_us=(slow,) * MAX_GAPS),
    ]
    assert len(encode(Records(worst))) < MAX_PACKET


def test_an_interruption_is_counted_as_cut_and_the_level_comes_back() -> None:
    with serving(0.02, 0.02) as (server, url), Load(Target(url, "m"), SHORT, workers=2) as load:
        load.start(Plan(shape="hold 6"))
        wait_for(lambda: server.open_streams == 6, "the start")
        load.interrupt()
        wait_for(lambda: load.finished, "the cut")
        before = load.result()
        assert (before.failed, before.cut) == (0, 6)
        asked = server.requests
        load.go_on()
        assert load.snapshot().asked == 6 and load.snapshot().running
        wait_for(lambda: server.requests > asked + 12, "it goes on")
        load.stop()
        wait_for(lambda: load.finished, "drain")
        assert (load.result().failed, load.result().cut) == (0, 6)


@pytest.mark.parametrize("loop", [Loop.CLOSED, Loop.OPEN])
def test_a_load_moves_to_another_server_without_losing_a_request(loop: Loop) -> None:
    prompts = Prompts(prompt_tokens=(16, 16), output_tokens=(20, 20))
    with serving(0.02, 0.02) as (old, url), serving(0.02, 0.02) as (new, next_url):
        with Load(Target(url, "m"), prompts, workers=2) as load:
            load.start(Plan(loop=loop, shape="hold 30"))
            wait_for(lambda: old.open_streams > 5, "the start")
            load.retarget(next_url)
            assert load.target.url == next_url
            wait_for(lambda: old.open_streams == 0, "the old server is left")
            asked = old.requests
            wait_for(lambda: new.requests > 60, "the new server is asked")
            assert old.requests == asked
            load.stop()
            wait_for(lambda: load.finished, "drain")
            result = load.result()
        assert (result.failed, result.cut, result.errors) == (0, 0, {})
        assert result.ok == old.requests + new.requests
        with pytest.raises(UsageError):
            load.retarget("https://127.0.0.1:1")


def test_conversations_carry_the_servers_own_words() -> None:
    records: list[RequestRecord] = []
    prompts = Prompts((8, 8), (3, 3), turns=3, think_s=(0.01, 0.02))
    with serving(0.01, 0.001) as (server, url):
        target = Target(url, "m")  # conversations are chats in any case
        with Load(target, prompts, workers=2, on_record=records.append) as load:
            load.start(Plan(shape="hold 4 for 1s"))
            wait_for(lambda: load.finished, "the load did not finish")
            result = load.result()
        bodies = [json.loads(body) for body in server.bodies]
    assert result.failed == 0 and result.ok == len(records) == server.requests
    assert {record.turn for record in records} == {1, 2, 3}
    for body in bodies:
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["user", "assistant", "user", "assistant", "user"][: len(roles)]
        said = {m["content"] for m in body["messages"] if m["role"] == "assistant"}
        assert said <= {" token token token"}
    assert {len(body["messages"]) for body in bodies} == {1, 3, 5}


def test_a_dataset_reaches_every_worker(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"prompt {number}", "max_tokens": 1 + number % 3} for number in range(40)]
    path.write_text("\n".join(map(json.dumps, lines)))
    with serving(0.01, 0.001) as (server, url):
        with Load(Target(url, "m"), Prompts(dataset=str(path)), workers=2) as load:
            load.start(Plan(shape="hold 4"))
            wait_for(lambda: server.requests >= 100, "requests")
            load.stop()
            wait_for(lambda: load.finished, "the load did not end")
        asked = {json.loads(body)["prompt"] for body in server.bodies}
    assert asked == {line["prompt"] for line in lines}


def test_a_dataset_with_a_fault_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    with (
        serving() as (server, url),
        Load(Target(url, "m"), Prompts(dataset=str(path)), workers=1) as load,
        pytest.raises(UsageError, match=r"prompts.jsonl:2: "),
    ):
        load.start(Plan())
    assert server.requests == 0


def test_a_trace_is_replayed_once_by_all_workers(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    moments = [number / 20 for number in range(40)]
    path.write_text("time,prompt_tokens\n" + "".join(f"{at},{30 + at:.0f}\n" for at in moments))
    records: list[RequestRecord] = []
    with serving(0.01, 0.001) as (server, url):
        with Load(Target(url, "m"), SHORT, workers=2, on_record=records.append) as load:
            load.start(Plan(Loop.OPEN, f"trace {path} speed 2"))
            wait_for(lambda: load.finished, "the load did not finish")
        assert server.requests == len(records) == 40
    intended = sorted(record.intended for record in records)
    assert [at - intended[0] for at in intended] == pytest.approx([at / 2 for at in moments])
    assert {record.prompt_tokens for record in records} == {30, 31, 32}


def test_each_record_says_when_what_happened_and_how_it_was_counted() -> None:
    records: list[RequestRecord] = []
    with (
        serving(0.05, 0.01) as (_, url),
        Load(Target(url, "m"), SHORT, workers=1, on_record=records.append, gaps=True) as load,
    ):
        load.start(Plan(Loop.OPEN, "hold 20 for 500ms"))
        wait_for(lambda: load.finished, "the load did not finish")
        result = load.result()
    for record in records:
        assert record.sent is not None and record.first_byte is not None
        assert record.first is not None and record.last is not None
        moments = [record.intended, record.sent, record.first_byte, record.first, record.last]
        assert moments == sorted(moments)
        assert (record.first_reasoning, record.counted, record.error) == (None, False, "")
        # The server sends each token by itself.
        assert record.gaps_us is not None and len(record.gaps_us) == record.tokens - 1
        assert sum(record.gaps_us) / 1e6 == pytest.approx(record.last - record.first, abs=1e-4)
    late = sum((r.sent or 0) - r.intended > 0.01 for r in records)
    assert (result.late, result.not_sent, result.timed_out) == (late, 0, 0)
    assert result.service_ttft.n == result.service_e2e.n == result.ok
    assert result.service_ttft.p50 is not None and result.ttft.p50 is not None
    assert result.service_ttft.p50 <= result.ttft.p50
    assert result.prompt_tokens == 16 * result.ok


def test_those_that_took_too_long_are_told_apart() -> None:
    with serving() as (_, url):
        result = run(url, Plan(shape="hold 2 for 50ms"), model=Quirk.STALL.value, timeout_s=0.3)
    assert (result.failed, result.timed_out) == (2, 2)


def test_a_worker_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "stderr"
    # Python's own warnings of what is left open go to stderr at the process's end.
    script = f"import os, sys\nos.dup2(os.open({str(told)!r}, os.O_WRONLY | os.O_CREAT), 2)\n"
    (tmp_path / "sitecustomize.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    with serving(0.0, 0.0) as (_, url):
        assert run(url, Plan(shape="hold 2 for 0.2s")).ok > 0
    assert told.exists() and "ResourceWarning" not in told.read_text()
