"""What becomes of the store when engines answer, fall silent, start, end and are changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from llmtop.analysis.series import SeriesName
from llmtop.engines.core.adapter import Reader
from llmtop.engines.core.conditions import Name
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.options import Option
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import Reading
from llmtop.engines.host.rank_sockets import socket_of
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.registry import adapter_named
from llmtop.engines.simulated import adapter
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.live_ranks import RankedLive
from llmtop.operations.session import EngineSession, Options
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.load_state import moment_of
from llmtop.tui.sources.sampling import Sampling
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.tui.store.timeline import Timeline
from llmtop.values import replace
from tests.conftest import snapshot
from tests.fake_fetch import FakeFetch
from tests.fake_live_server import Act, FakeLiveServer, Reply

URL = "http://127.0.0.1:9"
METRICS = URL + "/metrics"
NOW = 1_795_326_110.0
ME = "me@pts/1"
DEADLINE_S = 20.0
GONE = ScrapeError("nothing listens at http://127.0.0.1:9")


def page(running: int = 3, tokens: float = 100.0) -> str:
    return (
        "# TYPE vllm:num_requests_running gauge\n"
        f'vllm:num_requests_running{{model_name="m"}} {running}\n'
        "# TYPE vllm:generation_tokens_total counter\n"
        f'vllm:generation_tokens_total{{model_name="m"}} {tokens}\n'
        'vllm:prompt_tokens_total{model_name="m"} 7\n'
    )


def state(cap: int, *history: Mapping[str, Any], disabled: str | None = None) -> dict[str, Any]:
    option: dict[str, Any] = {
        "value": cap,
        "launch": 256,
        "minimum": 1,
        "maximum": 256,
        "pending": None,
    }
    option |= {"applies": "live", "note": None}
    return {
        "ok": True, "protocol": 1, "engine": "sim", "version": "1", "pid": 7,
        "options": {"max_num_seqs": option}, "running": 1, "waiting": 0, "evicted_total": 0,
        "history": list(history), "disabled": disabled,
    }  # fmt: skip


def past(time: float, to: int, outcome: str = "applied", by: str = "ann@pts/3") -> dict[str, Any]:
    reason = "too many" if outcome == "refused" else None
    return {
        "time": time, "by": by, "option": "max_num_seqs", "from": 256, "to": to,
        "outcome": outcome, "reason": reason, "evicted": 0,
    }  # fmt: skip


def record(log: Path | None = None) -> EngineRecord:
    spec = LaunchSpec("sim", "one", "m", "127.0.0.1", 9)
    return EngineRecord(spec, (), (), 7, 1, "boot", URL, str(log or "/no/log"), None, NOW)


class Rig:
    """One source on a scripted engine; time stands still unless it is moved."""

    def __init__(
        self,
        pages: Sequence[str | ScrapeError] = (page(),),
        socket: Path | None = None,
        states: Callable[[EngineRecord], EngineStatus] | None = None,
        of: EngineRecord | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.time = NOW
        self.news = 0
        endpoint = Endpoint("one", adapter.ADAPTER, URL, version="1", record=of)
        self.fetch = FakeFetch({METRICS: pages})
        live = LiveClient(socket, timeout_s=DEADLINE_S) if socket is not None else None
        self.session = EngineSession(endpoint, self.fetch, live=live, who=ME)
        self.store = Store()
        self.track = EngineTrack("one", "sim", "simulated", URL, owned=True, version="1")
        self.source = EngineSource(
            self.session,
            self.track,
            self.store,
            states,
            lambda: self.time,
            repaint=self.shown,
            wall=lambda: self.time,
            sleep=sleep,
        )

    def shown(self) -> None:
        self.news += 1

    async def beat(self, seconds: float = 1.0) -> None:
        await self.source.sample()
        self.time += seconds

    def values(self, name: SeriesName) -> list[float | None]:
        return [value for _, value in self.track.series.get(name, ())]

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.level, event.text) for event in self.store.events]


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "live"


async def test_the_cap_beside_a_sample_is_the_one_in_force(socket: Path) -> None:
    async with FakeLiveServer(socket, [state(256), state(64)]):
        rig = Rig(socket=socket)
        await rig.beat()
        assert rig.values(SeriesName.CAP) == [256]
        assert rig.values(SeriesName.RUNNING) == [3]
        rig.source.refresh_options()
        await rig.beat()
        assert rig.values(SeriesName.CAP) == [256, 64]
        await rig.source.close()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vllm", "max_num_seqs"),
        ("sglang", "max_running_requests"),
        ("tensorrt-llm", "max_batch_size"),
    ],
)
async def test_the_batch_limit_is_drawn_by_whatever_name_the_engine_has_for_it(
    kind: str, name: str
) -> None:
    rig = Rig()
    spec = next(one for one in adapter_named(kind).options if one.name == name)
    limit = Option(spec, 48, 48, 1, 48, spec.applies)
    rig.session.read_options = AsyncMock(return_value=Options((limit,), ""))  # type: ignore[method-assign]
    await rig.beat()
    assert rig.values(SeriesName.CAP) == [48]
    moment = moment_of(rig.track)
    assert moment is not None and moment.cap == 48
    await rig.source.close()


async def test_a_queue_limit_is_drawn_and_none_is_a_gap() -> None:
    rig = Rig()
    spec = next(one for one in adapter_named("vllm").options if one.name == "max_queued_requests")
    for value in (16, 0):
        limit = Option(spec, value, 0, 0, 4096, spec.applies)
        rig.session.read_options = AsyncMock(return_value=Options((limit,), ""))  # type: ignore[method-assign]
        rig.source.refresh_options()
        await rig.beat()
        rig.time += 1
    assert rig.values(SeriesName.QUEUE_LIMIT) == [16, None]
    await rig.source.close()


async def test_the_cap_of_several_ranks_is_their_sum_and_their_change_is_told_once(
    socket: Path,
) -> None:
    # Each rank has a batch of its own; running requests are those of all.
    ranks = [
        [state(256), state(64, past(NOW + 1, 64))],
        [state(256), state(64, past(NOW + 1.2, 64))],
    ]
    async with (
        FakeLiveServer(socket, ranks[0]),
        FakeLiveServer(socket_of(socket, 1), ranks[1]),
    ):
        rig = Rig(socket=socket)
        live = RankedLive(socket, (0, 1), lambda path: LiveClient(path, timeout_s=DEADLINE_S))
        rig.source.session = EngineSession(rig.session.endpoint, rig.fetch, live=live, who=ME)
        await rig.beat()
        assert rig.values(SeriesName.CAP) == [512]
        rig.time += 1
        rig.source.refresh_options()
        await rig.beat()
        assert rig.values(SeriesName.CAP) == [512, 128]
        told = [text for _, text in rig.told if "max_num_seqs" in text]
        assert told == ["max_num_seqs 256 -> 64 applied on 2 of 2 ranks (by ann@pts/3)"]
        assert [mark.label for mark in rig.track.marks] == ["seqs 256->64"]
        await rig.source.close()


async def test_a_change_during_a_beat_is_seen_and_shown_right_after_it(socket: Path) -> None:
    asked: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

    class Slow(FakeFetch):
        async def __call__(self, url: str) -> str:
            if not asked[0].is_set():
                asked[0].set()
                await asked[1].wait()
            return await super().__call__(url)

    async with FakeLiveServer(socket, [state(256), state(64)]):
        rig = Rig(socket=socket)
        rig.session = EngineSession(
            rig.session.endpoint, Slow({METRICS: [page(9), page(2)]}), live=rig.session.live
        )
        rig.source.session = rig.session
        sampling = Sampling([rig.source])
        first = sampling.sample(rig.source)
        await asyncio.wait_for(asked[0].wait(), DEADLINE_S)
        # The beat has its options already and waits for its numbers.
        rig.source.refresh_options()
        assert sampling.sample(rig.source, again=True) is first
        rig.time += 0.1
        asked[1].set()
        await asyncio.wait_for(first, DEADLINE_S)
        assert rig.values(SeriesName.RUNNING)[-1] == 2
        assert rig.values(SeriesName.CAP)[-1] == 64
        assert rig.news == 2  # the first sample, and what the change did
        await sampling.close()


async def test_no_look_comes_after_a_beat_that_has_not_begun() -> None:
    rig = Rig()
    sampling = Sampling([rig.source])
    sampling.sample(rig.source)
    await sampling.sample(rig.source, again=True)
    assert len(rig.fetch.asked) == 1
    await sampling.close()


async def test_without_an_answer_there_is_a_gap_and_the_reason_until_it_answers_again() -> None:
    rig = Rig([page(), GONE, GONE, GONE, page(5)])
    await rig.beat()
    sample = rig.track.sample
    for _ in range(3):
        await rig.beat()
    assert rig.track.stale_since == NOW + 1
    assert rig.track.trouble == GONE.message
    assert rig.track.sample is sample  # the last that is known
    assert rig.told == []
    await rig.beat()
    assert rig.track.stale_since is None and rig.track.trouble == ""
    assert rig.values(SeriesName.RUNNING) == [3, None, None, None, 5]
    assert rig.told == [("info", "one answers again after 3s")]


async def test_a_gap_of_the_engine_is_none_of_the_clients_figures() -> None:
    rig = Rig([GONE])
    rig.track.record(SeriesName.CLIENT_TTFT_P95, NOW - 1, 0.5)
    await rig.beat()
    assert rig.values(SeriesName.CLIENT_TTFT_P95) == [0.5]


async def test_somebody_elses_change_is_told_once(socket: Path) -> None:
    old, change = past(NOW - 60, 200), past(NOW + 1, 64)
    async with FakeLiveServer(socket, [state(200, old), state(64, old, change)]):
        rig = Rig(socket=socket)
        for _ in range(4):
            await rig.beat(2.0)
        assert rig.told == [("change", "max_num_seqs 256 -> 64 (by ann@pts/3)")]
        assert [(mark.time, mark.label) for mark in rig.track.marks] == [(NOW + 1, "seqs 256->64")]
        assert rig.track.marks[0].effect  # what it did will be told
        assert rig.store.events[0].time == NOW + 1
        await rig.source.close()


async def test_a_refused_change_is_an_event_and_no_mark(socket: Path) -> None:
    async with FakeLiveServer(socket, [state(256, past(NOW, 999, "refused", ME))]):
        rig = Rig(socket=socket)
        await rig.beat()
        assert rig.told == [("warning", "max_num_seqs 256 -> 999 refused: too many")]
        assert not rig.track.marks
        await rig.source.close()


async def test_two_changes_at_one_moment_are_two(socket: Path) -> None:
    async with FakeLiveServer(socket, [state(9, past(NOW, 8), past(NOW, 9))]):
        rig = Rig(socket=socket)
        await rig.beat()
        assert len(rig.told) == len(rig.track.marks) == 2
        await rig.source.close()


async def test_live_options_that_switched_themselves_off_are_an_error_once(socket: Path) -> None:
    broken = state(256, disabled="KeyError: x")
    async with FakeLiveServer(socket, [broken, Act.HANG_UP, broken]):
        rig = Rig(socket=socket)
        for _ in range(3):
            await rig.beat(2.0)
        assert rig.told == [("error", "one: live options are off: KeyError: x")]
        assert rig.track.options_note == "live options are off: KeyError: x"
        await rig.source.close()


@pytest.mark.parametrize("reply", [Act.HANG_UP, b"nonsense\n"], ids=["hangs up", "nonsense"])
async def test_numbers_come_also_where_the_socket_fails(socket: Path, reply: Reply) -> None:
    async with FakeLiveServer(socket, [reply]):
        rig = Rig(socket=socket)
        await rig.beat()
        assert rig.track.sample is not None and rig.track.stale_since is None
        assert rig.track.options and rig.track.options_note
        await rig.source.close()


async def test_counters_that_begin_anew_make_a_mark() -> None:
    rig = Rig([page(tokens=100), page(tokens=150), page(tokens=7), page(tokens=9)])
    for _ in range(4):
        await rig.beat()
    assert [(mark.time, mark.label) for mark in rig.track.marks] == [(NOW + 2, "restart")]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (State.FAILED, ("error", "one failed: no memory; a smaller model")),
        (State.LOST, ("error", "one was lost")),
        (State.STOPPED, ("info", "one was stopped")),
    ],
)
async def test_an_end_is_told_in_a_sentence_and_settles_it(
    end: State, words: tuple[str, str]
) -> None:
    ours = replace(record(), cause="no memory", advice="a smaller model")
    states = [State.UNRESPONSIVE, end]
    found = iter(states)
    rig = Rig([GONE], states=lambda r: EngineStatus(ours, next(found)), of=ours)
    await rig.beat()
    assert not rig.source.settled.is_set()
    await rig.beat()
    assert rig.told == [words]
    assert rig.source.settled.is_set()
    assert rig.news == 1


async def test_a_state_is_as_old_as_it_was_seen_though_the_wall_clock_was_stepped() -> None:
    ours = record()
    found = iter(
        [
            EngineStatus(ours, State.READY, NOW),
            EngineStatus(ours, State.UNRESPONSIVE, NOW + 3601.0),  # put forward by an hour
            EngineStatus(ours, State.UNRESPONSIVE, NOW + 3601.0),
            EngineStatus(ours, State.READY, NOW - 3597.0),  # and back by two
        ]
    )
    rig = Rig([page()] * 4, states=lambda r: next(found), of=ours)
    ages = []
    for _ in range(4):
        await rig.beat()
        assert rig.track.status is not None and rig.track.status.since is not None
        ages.append(rig.time - rig.track.status.since)
    assert ages == [1.0, 1.0, 2.0, 1.0]


async def test_a_first_sample_settles_it() -> None:
    rig = Rig([GONE, page()])
    await rig.beat()
    assert not rig.source.settled.is_set()
    await rig.beat()
    assert rig.source.settled.is_set()


async def test_the_logs_end_is_there_while_it_is_of_use(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n\n\x1b[31mthree\x1b[0m\n" + b"x" * 100_000 + b"\nlast")
    ours = record(log)
    now = State.FAILED
    rig = Rig(states=lambda r: EngineStatus(ours, now), of=ours)
    await rig.beat()
    lines = rig.track.log_tail.splitlines()
    assert lines[0] == "three" and lines[-1] == "last"
    assert len(lines) == 3 and len(lines[1]) <= 500
    now = State.READY
    await rig.beat()
    assert rig.track.log_tail == ""


async def test_a_start_shows_each_new_line_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    ours = record(log)
    seen: list[str] = []

    async def no_sleep(seconds: float) -> None:
        seen.append(rig.track.log_tail)

    def starting(of: EngineRecord) -> EngineStatus:
        with log.open("a") as file:
            file.write(f"line {len(seen)}\n")
        return EngineStatus(ours, State.STARTING)

    rig = Rig(states=starting, of=ours, sleep=no_sleep)
    await rig.beat()
    assert [tail.splitlines()[-1] for tail in seen] == [f"line {n}" for n in range(len(seen))]
    assert len(seen) > 1 and rig.fetch.asked == []


def test_the_clock_of_the_screen_does_not_follow_a_stepped_wall_clock() -> None:
    wall, steady = 1000.0, 5.0
    timeline = Timeline(lambda: wall, lambda: steady)
    wall, steady = 10.0, 6.0
    assert timeline.now() == 1001.0


class Counting:
    """A source that waits for leave, or raises."""

    def __init__(self, faults: Sequence[Exception | None] = (), *, slow: bool = False) -> None:
        self.beats = 0
        self.closed = False
        self._faults = list(faults)
        self.go_on = asyncio.Event()
        if not slow:
            self.go_on.set()

    async def sample(self) -> None:
        self.beats += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault
        await self.go_on.wait()

    async def close(self) -> None:
        self.closed = True


async def test_a_source_that_raises_is_told_once_and_the_others_go_on() -> None:
    told: list[str] = []
    bad = Counting([ValueError("a"), ValueError("a"), ValueError("b"), None, ValueError("b")])
    good = Counting()
    sampling = Sampling([bad, good], on_fault=lambda source, error: told.append(str(error)))
    for _ in range(5):
        sampling.sample_all()
        await asyncio.gather(sampling.sample(bad), sampling.sample(good))
    assert (bad.beats, good.beats) == (5, 5)
    assert told == ["a", "b", "b"]  # the last after it had been well again
    await sampling.close()


async def test_a_busy_source_is_not_started_twice_and_delays_nobody() -> None:
    slow, quick = Counting(slow=True), Counting()
    sampling = Sampling([slow, quick])
    for _ in range(3):
        sampling.sample_all()
        await sampling.sample(quick)
    assert (slow.beats, quick.beats) == (1, 3)
    task = sampling.sample(slow, again=True)
    sampling.sample(slow, again=True)
    slow.go_on.set()
    await asyncio.wait_for(task, DEADLINE_S)
    assert slow.beats == 2  # one more for all who asked
    await sampling.close()


async def test_a_source_that_does_not_close_leaves_none_open() -> None:
    class Stuck(Counting):
        async def close(self) -> None:
            raise OSError("stuck")

    told: list[Exception] = []
    last = Counting()
    sampling = Sampling([Stuck(), last], on_fault=lambda source, error: told.append(error))
    await sampling.close()
    assert last.closed and len(told) == 1


async def test_beats_stay_on_their_schedule_however_late_each_comes() -> None:
    class Ended(Exception):
        pass

    clock, begun = 100.0, []

    async def oversleep(seconds: float) -> None:
        nonlocal clock
        begun.append(clock)
        if len(begun) == 6:
            raise Ended
        clock += seconds + 0.25  # the machine is busy

    sampling = Sampling([], interval=1.0, sleep=oversleep, steady=lambda: clock)
    with pytest.raises(Ended):
        await sampling.run()
    assert begun == [100.0, 101.25, 102.25, 103.25, 104.25, 105.25]


class Paced:
    """A reader whose readings are at scripted moments of the monotonic clock."""

    note = ""

    steps = None

    def __init__(self, reader: Reader, *moments: float) -> None:
        self._reader, self._moments = reader, iter(moments)

    def give_way(self) -> None:
        self._reader.give_way()

    async def read(self) -> Reading:
        return replace(await self._reader.read(), elapsed=next(self._moments))

    async def close(self) -> None:
        await self._reader.close()


async def test_a_hung_engine_is_a_condition_and_an_event_until_it_moves() -> None:
    rig = Rig([*[page(running=32)] * 4, page(running=32, tokens=101)])
    rig.session._reader = Paced(rig.session._reader, 0, 5, 9, 10, 11)
    for _ in range(4):
        await rig.source.sample()
    (found,) = rig.track.conditions
    assert found.name is Name.HUNG
    told = [event for event in rig.store.events if "32 running" in event.text]
    assert [event.level for event in told] == ["warning"]
    await rig.source.sample()
    assert rig.track.conditions == ()
    assert "no longer hung" in rig.store.events[-1].text


async def test_a_core_that_hung_before_it_took_our_requests_is_hung_too() -> None:
    rig = Rig([page(running=0)])
    rig.session._reader = Paced(rig.session._reader, 0, 5, 9, 10)
    rig.store.load = snapshot(in_flight=12, oldest_wait_s=9.0)
    rig.store.load_target = "another"
    for _ in range(3):
        await rig.source.sample()
    assert not rig.track.conditions
    rig.store.load_target = "one"
    await rig.source.sample()
    (found,) = rig.track.conditions
    assert found.name is Name.HUNG and "12 requests of this load" in found.message


async def test_a_finding_that_comes_and_goes_is_not_an_event_each_time() -> None:
    uneven = page() + 'vllm:kv_cache_usage_perc{engine="0"} 0.1\n'
    pages = [uneven + f'vllm:kv_cache_usage_perc{{engine="1"}} {0.1 + 0.8 * (n % 2)}\n'
             for n in range(20)]  # fmt: skip
    rig = Rig(pages)
    for _ in pages:
        await rig.beat(1.0)
    told = [event for event in rig.store.events if "fullest rank" in event.text]
    assert len(told) == 1
    assert not any("no longer" in event.text for event in rig.store.events)
