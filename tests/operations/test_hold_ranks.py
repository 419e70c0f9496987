"""A hold on an engine with two data-parallel ranks: what happens to one of them alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

import pytest
from msgspec.structs import replace

from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.live_protocol import LiveError, LiveGone, LiveOption, LiveState
from llmtop.engines.core.options import Applies, Change, Outcome
from llmtop.engines.core.steps import Steps
from llmtop.engines.tuning.live_ranks import RankedLive
from llmtop.engines.vllm import adapter
from llmtop.operations.session import EngineSession
from llmtop.operations.slo.hold_engine import SessionChanger
from llmtop.operations.slo.holder import Holder, HoldReport
from llmtop.operations.slo.limits import Names
from llmtop.slo_control.limits import Goal, LimitValues, Range
from tests.fake_fetch import FakeFetch
from tests.forecast.virtual_engine import TRUE, chat, steps_of

NAMES = Names("max_num_seqs", "max_num_batched_tokens", "max_queued_requests")
LAUNCH = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192, "max_queued_requests": 0}
OWN = {**LAUNCH, "max_num_seqs": 512}  # the operator has set one as the engine ran
PRESSED = steps_of(TRUE, chat(120, "open"), 60.0)


class Rank:
    """One rank's scheduler behind its socket."""

    def __init__(self) -> None:
        self.options = dict(OWN)
        self.launch = dict(LAUNCH)
        self.least = 1  # of the batch limit
        self.gone, self.frozen, self.restarted = False, False, False
        self._orders: list[dict[str, int]] = []  # in its socket
        self.history: list[dict[str, int]] = []

    def restart(self) -> None:
        """The process is another one now."""
        self.options, self.restarted, self.gone = dict(self.launch), True, False

    def go_on(self) -> None:
        """It continues, and reads what lies in its socket."""
        self.frozen = False
        for order in self._orders:
            self._take(order)
        self._orders.clear()

    def _take(self, changes: Mapping[str, int]) -> None:
        self.options |= changes
        self.history.append(dict(self.options))

    def _answer(self) -> None:
        if self.gone:
            raise LiveGone("nothing listens")
        if self.frozen:
            raise LiveError("it does not answer")

    async def get(self) -> LiveState:
        self._answer()
        options = {
            name: LiveOption(value, LAUNCH[name], 0, 1 << 20, Applies.LIVE)
            for name, value in self.options.items()
        }
        return LiveState("vllm", "1", 1, options, 0, 0)

    async def set(
        self, changes: Mapping[str, int], *, evict: bool = False, by: str = "", wait_s: float = 1.0
    ) -> tuple[Change, ...]:
        if self.frozen:
            self._orders.append(dict(changes))
        self._answer()
        made = []
        for name, to in changes.items():
            low = name == NAMES.batch_limit and to < self.least
            outcome = Outcome.REFUSED if low else Outcome.APPLIED
            made.append(Change(name, self.options[name], to, outcome, "too low" if low else None))
            if not low:
                self._take({name: to})
        return tuple(made)

    async def close(self) -> None:
        pass


class TwoRanks:
    """An overloaded engine, and what happens to it on some beats."""

    def __init__(self, path: Path, events: Mapping[int, Callable[[TwoRanks], None]]) -> None:
        self.ranks = (Rank(), Rank())
        self.beat, self.now, self._events = 0, 0.0, events
        self.seen: list[tuple[dict[str, int], ...]] = []  # by beat: what is in force then

        def client(socket: Path) -> Rank:
            return self.ranks[1 if socket.name.endswith(".1") else 0]

        live = RankedLive(path / "live", (0, 1), client)
        endpoint = Endpoint("one", adapter.ADAPTER, "http://127.0.0.1:1", version="1")
        self.changer = SessionChanger(EngineSession(endpoint, FakeFetch({}), live=live))

    async def steps(self, newest: int = 0) -> Steps:
        self.seen.append(tuple(dict(rank.options) for rank in self.ranks))
        self.beat += 1
        then, self.now = self.now, self.now + 1.0
        if act := self._events.get(self.beat):
            act(self)
        up = [n for n, rank in enumerate(self.ranks) if not (rank.gone or rank.frozen)]
        if not up:
            raise LiveError("nobody answers")
        new = tuple(n for n in up if self.ranks[n].restarted)
        for number in new:
            self.ranks[number].restarted = False
        found = [s for s in PRESSED if then < s.end <= self.now]
        both = tuple(replace(s, rank=n) for s in found for n in up)
        return Steps(both, 0, len(up), restarted_ranks=new)

    async def latencies(self) -> Latencies:
        return Latencies({}, self.now, 2, boots=("a", "b"))

    @property
    def in_force(self) -> list[dict[str, int]]:
        return [rank.options for rank in self.ranks]


def held(engine: TwoRanks, beats: int) -> HoldReport:
    holder = Holder(
        engine,
        engine.changer,
        NAMES,
        Goal(1.0, 0.05),
        LimitValues(OWN["max_num_seqs"], 0, OWN["max_num_batched_tokens"]),
        Range(),
        wall=lambda: engine.now,
        clock=lambda: engine.now,
        beat_s=0.0001,
    )
    return asyncio.run(holder.run(asyncio.Event(), seconds=beats + 0.5))


def notes(report: HoldReport) -> list[str]:
    """What a person reads besides the controller's own reasons, each once."""
    words = ("rank", "restarted", "answer", "stays")
    events = [why for why, _ in groupby(one.why for one in report.actions)]
    return [why for why in events if any(word in why for word in words) and "served" not in why]


def test_one_rank_restarts_and_both_have_the_operators_values(tmp_path: Path) -> None:
    engine = TwoRanks(tmp_path, {8: lambda e: e.ranks[1].restart()})
    report = held(engine, 20)
    assert all(limits["max_num_seqs"] < 512 for limits in engine.seen[7])
    assert engine.seen[8] == (OWN, OWN)  # the next beat
    assert notes(report) == ["rank 1 was restarted"]
    assert report.restored and not report.ended and report.own == OWN
    assert engine.in_force == [OWN, OWN]


def test_all_ranks_restart_with_other_values_and_these_are_the_operators(tmp_path: Path) -> None:
    other = {**LAUNCH, "max_num_seqs": 768}

    def restart(engine: TwoRanks) -> None:
        for rank in engine.ranks:
            rank.launch = dict(other)
            rank.restart()

    engine = TwoRanks(tmp_path, {8: restart})
    report = held(engine, 20)
    assert notes(report) == ["the engine was restarted"]
    assert report.restored and report.own == other
    assert engine.in_force == [other, other]


def test_an_engine_whose_ranks_return_one_by_one_brings_its_own_values(tmp_path: Path) -> None:
    other = {**LAUNCH, "max_num_seqs": 768}

    def stop(engine: TwoRanks) -> None:
        for rank in engine.ranks:
            rank.gone, rank.launch = True, dict(other)

    events = {6: stop, 12: lambda e: e.ranks[1].restart(), 13: lambda e: e.ranks[0].restart()}
    report = held(TwoRanks(tmp_path, events), 20)
    assert report.restored and report.own == other


def test_a_rank_that_dies_and_is_back_is_one_event_each(tmp_path: Path) -> None:
    events = {6: lambda e: setattr(e.ranks[1], "gone", True), 14: lambda e: e.ranks[1].restart()}
    engine = TwoRanks(tmp_path, events)
    report = held(engine, 30)
    assert engine.seen[6][0] == OWN
    assert any(limits[0] != OWN for limits in engine.seen[7:13])  # the other is held meanwhile
    assert engine.seen[14] == (OWN, OWN)
    assert notes(report) == ["a rank is gone: 1 answer", "a rank is back: 2 answer"]
    assert report.restored and not report.ended and engine.in_force == [OWN, OWN]


def test_a_frozen_rank_that_takes_old_limits_late_gets_the_operators_values(tmp_path: Path) -> None:
    events = {6: lambda e: setattr(e.ranks[1], "frozen", True), 14: lambda e: e.ranks[1].go_on()}
    engine = TwoRanks(tmp_path, events)
    report = held(engine, 30)
    assert engine.seen[14] == (OWN, OWN)
    assert notes(report) == ["a rank is gone: 1 answer", "a rank is back: 2 answer"]
    assert report.restored and not report.ended and engine.in_force == [OWN, OWN]


def test_a_rank_that_is_frozen_at_the_end_is_told_to_be_not_restored(tmp_path: Path) -> None:
    engine = TwoRanks(tmp_path, {6: lambda e: setattr(e.ranks[1], "frozen", True)})
    report = held(engine, 12)
    assert engine.ranks[0].options == OWN
    assert not report.restored and report.not_restored["max_num_seqs"] < 512
    engine.ranks[1].go_on()
    assert engine.ranks[1].options == OWN  # that order lay in its socket


def test_an_engine_that_is_silent_at_the_end_is_told_with_the_limits_that_stay(
    tmp_path: Path,
) -> None:
    def freeze(engine: TwoRanks) -> None:
        for rank in engine.ranks:
            rank.frozen = True

    report = held(TwoRanks(tmp_path, {6: freeze}), 12)
    stays = report.not_restored["max_num_seqs"]
    (said,) = [words for words in notes(report) if words.startswith("max_num_seqs stays")]
    assert said.startswith(f"max_num_seqs stays {stays}: ")


def test_a_limit_that_one_rank_refuses_is_said_once_and_taken_back_on_the_other(
    tmp_path: Path,
) -> None:
    engine = TwoRanks(tmp_path, {})
    engine.ranks[1].least = 512
    report = held(engine, 16)
    assert any(now["max_num_seqs"] < 512 for now in engine.ranks[0].history)
    assert notes(report) == ["max_num_seqs is not the same on all ranks: rank 1 refused: too low"]
    assert report.restored and engine.in_force == [OWN, OWN]


def test_limits_that_an_engine_takes_late_were_not_set_by_somebody_else(tmp_path: Path) -> None:
    def freeze(engine: TwoRanks) -> None:
        for rank in engine.ranks:
            rank.frozen = True

    def thaw(engine: TwoRanks) -> None:
        for rank in engine.ranks:
            rank.go_on()

    engine = TwoRanks(tmp_path, {4: freeze, 14: thaw})
    report = held(engine, 30)
    assert not report.ended and report.restored and engine.in_force == [OWN, OWN]


@pytest.mark.parametrize("gone", [False, True], ids=["two ranks", "one of two"])
def test_what_somebody_else_sets_on_all_that_answer_ends_the_hold(
    tmp_path: Path, *, gone: bool
) -> None:
    def meddle(engine: TwoRanks) -> None:
        for rank in engine.ranks[gone:]:
            rank.options["max_num_seqs"] = 77

    events = {6: lambda e: setattr(e.ranks[0], "gone", gone), 12: meddle}
    engine = TwoRanks(tmp_path, events)
    report = held(engine, 30)
    assert report.ended == "another user or program has set max_num_seqs to 77"
    assert all(rank.options == {**OWN, "max_num_seqs": 77} for rank in engine.ranks[gone:])
