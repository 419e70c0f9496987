"""A hold on an engine that is a script: limits in force, faults, and restoration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pytest
from msgspec.structs import replace

from llmtop import LlmtopError
from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.core.steps import Steps
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.operations.slo.holder import Holder, HoldReport
from llmtop.operations.slo.holders import HolderLock, HolderState, holder_of
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.outcomes import LatencyWatch
from llmtop.slo_control.limits import Goal, LimitValues, Range
from tests.forecast.virtual_engine import TRUE, chat, steps_of

NAMES = Names("max_num_seqs", "max_num_batched_tokens", "max_queued_requests")
OWN = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192, "max_queued_requests": 0}
PRESSED = steps_of(TRUE, chat(120, "open"), 40.0)


class Script:
    """An engine that is overloaded, and what happens to it on some beats."""

    def __init__(self, events: Mapping[int, Callable[[Script], None]] | None = None) -> None:
        self.beat, self.now = 0, 0.0
        self.options: dict[str, int] = dict(OWN)
        self.purposes: list[Purpose | None] = []
        self.restarted, self.ranks, self.mute, self.clock_shift = (
            False,
            1,
            False,
            0.0,
        )
        self.idle = False
        self.deaf, self.grain = False, 1
        self.set: list[tuple[int, dict[str, int]]] = []  # by beat: what is in force then
        self.events = events or {}

    async def steps(self, newest: int = 0) -> Steps:
        self.beat += 1
        then, self.now = self.now, self.now + 1.0
        act = self.events.get(self.beat)
        if act is not None:
            act(self)
        if self.mute:
            raise LlmtopError("nothing listens")
        restarted, self.restarted = self.restarted, False
        shift = self.clock_shift
        steps = () if self.idle else PRESSED
        found = [replace(s, end=s.end + shift) for s in steps if then < s.end <= self.now]
        new = tuple(range(self.ranks)) if restarted else ()
        return Steps(tuple(found), 0, self.ranks, restarted_ranks=new)

    async def latencies(self) -> Latencies:
        return Latencies({}, self.now, 1, boots=("a",))

    async def change(
        self, wanted: Mapping[str, OptionValue], *, purpose: Purpose | None = None
    ) -> tuple[Change, ...]:
        if self.mute or self.deaf:
            raise LlmtopError("nothing listens")
        self.purposes.append(purpose)
        made = []
        for name, value in wanted.items():
            assert isinstance(value, int)
            value -= value % self.grain
            made.append(Change(name, self.options[name], value, Outcome.APPLIED))
            self.options[name] = value
        self.set.append((self.beat, dict(self.options)))
        return tuple(made)

    async def values(self) -> Mapping[str, Sequence[OptionValue]]:
        return {name: (value,) * self.ranks for name, value in self.options.items()}


def held(
    script: Script, beats: int, seen: list[tuple[Mapping[str, int], bool]] | None = None
) -> HoldReport:
    stop = asyncio.Event()

    def beat(limits: Mapping[str, int], engaged: bool, words: str, actions: int) -> None:
        if seen is not None:
            seen.append((dict(limits), engaged))
        if script.beat >= beats:
            stop.set()

    holder = Holder(
        script,
        script,
        NAMES,
        Goal(1.0, 0.05),
        LimitValues(1024, 0, 8192),
        Range(),
        on_beat=beat,
        wall=lambda: script.now + script.clock_shift,
        clock=lambda: script.now,
        beat_s=0.0001,
    )

    async def run() -> HoldReport:
        async with asyncio.timeout(20):
            return await holder.run(stop, seconds=beats + 0.5)

    return asyncio.run(run())


def test_an_overload_is_limited_and_the_operators_values_return() -> None:
    script, seen = Script(), list[tuple[Mapping[str, int], bool]]()
    report = held(script, 10, seen)
    limits, engaged = seen[-1]
    assert engaged and limits["max_num_seqs"] < 1024 and limits["max_queued_requests"] > 0
    assert limits["max_num_batched_tokens"] < 8192
    assert report.restored and script.options == OWN
    assert report.actions[-1].why == "the hold ends"
    assert {one.option for one in report.actions if one.option} == set(OWN)
    assert all(p is not None and (p.work, p.before) == ("hold", OWN) for p in script.purposes)


FAULTS = (
    "the engine was restarted",
    "a rank is gone: 1 answer",
    "a rank is back: 2 answer",
    "the clock of this machine was set",
    "the engine does not answer: nothing listens",
    "the load is below the knee again",
)


def faults_of(report: HoldReport) -> list[str]:
    """Each as often as a person sees it: changes for one reason are one event."""
    return [why for why, _ in groupby(one.why for one in report.actions) if why in FAULTS]


def restart(script: Script) -> None:
    script.options, script.restarted = dict(OWN), True


def lose(script: Script) -> None:
    script.ranks = 1


def gain(script: Script) -> None:
    script.ranks = 2


def set_clock(script: Script) -> None:
    script.clock_shift = 3600.0


def set_back(script: Script) -> None:
    script.clock_shift = -3600.0


def leave(script: Script) -> None:
    script.idle = True


@pytest.mark.parametrize(
    ("fault", "ranks", "within", "event"),
    [
        (restart, 1, 1, "the engine was restarted"),
        (lose, 2, 1, "a rank is gone: 1 answer"),
        (gain, 1, 1, "a rank is back: 2 answer"),
        (set_clock, 1, 1, "the clock of this machine was set"),
        (set_back, 1, 1, "the clock of this machine was set"),
        (leave, 1, 10, "the load is below the knee again"),
    ],
    ids=["restarted", "rank lost", "rank back", "clock set", "clock set back", "load gone"],
)
def test_a_fault_returns_the_operators_values_and_is_one_event(
    fault: Callable[[Script], None], ranks: int, within: int, event: str
) -> None:
    script = Script({6: fault})
    script.ranks = ranks
    report = held(script, 6 + within)
    assert any(options != OWN for beat, options in script.set if beat < 6)
    if fault is not restart:
        assert any(6 <= beat <= 6 + within and now == OWN for beat, now in script.set)
    assert faults_of(report) == [event]
    assert report.restored and script.options == OWN


def mute(on: bool) -> Callable[[Script], None]:
    return lambda script: setattr(script, "mute", on)


def test_a_silent_engine_is_one_event_and_its_values_return_when_it_answers() -> None:
    script = Script({5: mute(True), 12: mute(False)})
    report = held(script, 12)
    assert faults_of(report) == ["the engine does not answer: nothing listens"]
    assert (12, OWN) in script.set
    assert report.restored and script.options == OWN


def test_a_silent_engine_that_was_not_limited_is_one_event() -> None:
    script = Script({1: leave, 5: mute(True), 12: mute(False)})
    report = held(script, 14)
    events = [one.why for one in report.actions]
    assert events == ["the engine does not answer: nothing listens"]


def test_a_restart_with_other_values_makes_these_the_operators() -> None:
    other = {**OWN, "max_num_seqs": 512}

    def restart_smaller(script: Script) -> None:
        script.options, script.restarted = dict(other), True

    script = Script({6: restart_smaller})
    report = held(script, 16)
    assert not report.ended and report.restored
    assert script.options == other


def test_a_change_that_is_not_answered_does_not_end_the_hold() -> None:
    def deaf(on: bool) -> Callable[[Script], None]:
        return lambda script: setattr(script, "deaf", on)

    script = Script({1: deaf(True), 8: deaf(False)})
    report = held(script, 14)
    assert not report.ended
    assert any(options != OWN for _, options in script.set)
    assert report.restored and script.options == OWN


def test_what_the_engine_rounds_was_not_set_by_somebody_else() -> None:
    script = Script()
    script.grain = 64
    report = held(script, 14)
    assert not report.ended and report.restored


def test_what_somebody_else_sets_stays_and_ends_the_hold() -> None:
    def meddle(script: Script) -> None:
        script.options["max_num_seqs"] = 77

    script = Script({8: meddle})
    report = held(script, 30)
    assert report.ended == "another user or program has set max_num_seqs to 77"
    assert script.options == {**OWN, "max_num_seqs": 77}


def state(pid: int = 1) -> HolderState:
    return HolderState(pid, "ann@pts/3", "ttft=1s", 1.0, 2.0, OWN, OWN, False, 0)


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first, second = HolderLock(tmp_path), HolderLock(tmp_path)
    assert holder_of(tmp_path) is None
    first.take()
    first.write(state())
    assert holder_of(tmp_path) == state()
    with pytest.raises(LlmtopError, match=r"ann@pts/3 \(pid 1\) already holds this engine"):
        second.take()
    first.release()
    assert holder_of(tmp_path) is None
    second.take()
    second.release()


def test_a_holder_that_was_killed_is_none(tmp_path: Path) -> None:
    lock = HolderLock(tmp_path)
    lock.write(state())  # the file is left, the lock is not
    assert holder_of(tmp_path) is None


def histogram(*seconds: float) -> LatencyHistogram:
    buckets: dict[int, int] = {}
    for value in seconds:
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    return LatencyHistogram(len(seconds), sum(seconds), buckets=buckets)


def test_late_answers_are_counted_over_a_restart() -> None:
    watch = LatencyWatch(Goal(1.0, 0.05))
    before = [0.2] * 50
    watch.add(Latencies({"ttft": histogram(*before)}, 0.0, 1, boots=("a",)))
    after = histogram(*before, 0.3, 0.4, 1.5, 0.3, 0.2)
    late = {"ttft": after, "tpot": histogram(0.01, 0.09)}
    watch.add(Latencies(late, 1.0, 1, boots=("a",)))
    assert watch.outcomes().accepted == 5
    assert (watch.outcomes().late_ttft, watch.outcomes().late_tpot) == (1, 1)
    assert watch.ttft_p95() == pytest.approx(1.5, rel=0.01)
    watch.add(Latencies({"ttft": histogram(0.1)}, 2.0, 1, boots=("b",)))
    watch.add(Latencies({"ttft": histogram(0.1, 2.0)}, 3.0, 1, boots=("b",)))
    assert (watch.outcomes().accepted, watch.outcomes().late_ttft) == (6, 2)


def test_late_answers_are_at_most_all_of_them() -> None:
    watch = LatencyWatch(Goal(0.1, 0.01))
    empty = {"ttft": histogram(), "tpot": histogram()}
    watch.add(Latencies(empty, 0.0, 1, boots=("a",)))
    assert watch.outcomes().late_share is None
    slow = {"ttft": histogram(*[1.0] * 8), "tpot": histogram(*[1.0] * 6)}
    watch.add(Latencies(slow, 1.0, 1, boots=("a",)))
    assert watch.outcomes().late == 8 and watch.outcomes().late_share == 1.0
