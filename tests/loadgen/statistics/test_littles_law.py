"""The client's own account of a level: what its records report against what was in flight."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest

from llmtop.loadgen.core.results import ClientHealth, Fate, RequestRecord
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.saturation import Saturation, SaturationResult
from llmtop.loadgen.statistics.client_health import VALID, balanced
from llmtop.loadgen.statistics.littles_law import Balance, InFlightAccount
from llmtop.loadgen.statistics.shared_counters import SIZE, SharedCounters
from llmtop.loadgen.workers.messages import MAX_PACKET, Records, to_owner
from llmtop.loadgen.workers.worker import Worker
from llmtop.values import replace
from tests.virtual_load import VirtualLoad

HEALTH = ClientHealth(VALID, "kernel")


def request(begin: float, end: float, fate: Fate = Fate.OK) -> RequestRecord:
    return RequestRecord(
        begin, begin, begin, begin, end - 0.01, 8, 8, False, fate, ended=end
    )  # fmt: skip


def waves(
    streams: int, length: float, until: float, kept: Callable[[], bool] = lambda: True
) -> InFlightAccount:
    """All streams begin and end together, so that the edges of a window are as rough as can be."""
    account, began = InFlightAccount(), 0.0
    for beat in range(int(until * 10) + 1):
        now = beat / 10
        while began + length <= now:
            for _ in range(streams):
                if kept():
                    account.take(request(began, began + length))
            began += length
        account.sample(now, streams)
    return account


@pytest.mark.parametrize("until", [3.0, 3.3, 3.6, 3.9])
def test_waves_balance_wherever_the_window_ends(until: float) -> None:
    began = int(until / 0.8) * 0.8
    balance = waves(32, 0.8, until).balance(began)
    assert balance is not None
    assert balance.ratio == pytest.approx(1.0, abs=0.001)
    assert balance.seconds <= began
    assert balanced(HEALTH, balance) == ""


def test_an_account_without_a_fifth_of_its_records_is_the_clients() -> None:
    rng = random.Random(1)
    balance = waves(32, 0.8, 6.0, lambda: rng.random() >= 0.2).balance(5.6)
    assert balance is not None and balance.ratio == pytest.approx(0.8, abs=0.06)
    assert balanced(HEALTH, replace(balance, ratio=0.8)) == (
        "its records cover 80% of the time that requests were in flight (Little's law)"
    )


def test_a_counter_that_a_crowd_keeps_behind_is_no_missing_record() -> None:
    crowded = replace(HEALTH, run_delay=0.4)
    assert balanced(crowded, Balance(0.8, 5.0, 100)) == ""
    assert balanced(crowded, Balance(0.4, 5.0, 100))


@pytest.mark.parametrize(
    ("ratio", "valid"), [(0.91, True), (1.09, True), (0.89, False), (1.12, False)]
)
def test_a_tenth_is_the_most(ratio: float, valid: bool) -> None:
    assert (balanced(HEALTH, Balance(ratio, 5.0, 100)) == "") is valid


def test_few_requests_and_short_windows_get_no_verdict() -> None:
    assert balanced(HEALTH, Balance(0.5, 5.0, 19)) == ""
    assert balanced(HEALTH, None) == ""
    assert waves(32, 0.4, 0.85).balance(0.8) is None
    # A stream that hangs was in flight all the time and has no record: where it began all ends.
    assert waves(4, 0.8, 6.0).balance(-3.0) is None
    assert InFlightAccount().balance(None) is None


def test_a_request_that_failed_leaves_nothing_to_judge() -> None:
    for fate in (Fate.FAILED, Fate.CUT):
        account = waves(8, 0.5, 4.0)
        account.take(request(3.0, 3.2, fate))
        assert account.balance(3.5) is None


def measured(keep: Callable[[RequestRecord], bool]) -> list[LevelResult]:
    load = VirtualLoad(11, 24, wander=0.02, noise=0.05)
    saturation = Saturation(None, load.now, top=32, seconds=2.0)
    load.on_record = lambda record: saturation.take(record) if keep(record) else None
    saturation.begin(load)
    while not isinstance(found := saturation.poll(), SaturationResult):
        load.pass_time(0.1)
    return list(found.levels)


def test_no_level_of_a_client_that_loses_nothing_is_called_its_fault() -> None:
    levels = measured(lambda record: True)
    assert all(level.valid for level in levels)
    assert all(level.little == pytest.approx(1.0, abs=0.01) for level in levels)


def test_every_level_of_one_that_loses_a_fifth_is() -> None:
    rng = random.Random(2)
    levels = measured(lambda record: rng.random() >= 0.2)
    assert levels and not any(level.valid for level in levels)
    assert all("Little's law" in level.health.verdict for level in levels)


class OneEnd:
    """Scheduler and transport of a worker in which one request ends; what its owner has of it when
    the counters is renewed."""

    idle = False

    def __init__(self, worker: Worker, owner: socket.socket) -> None:
        self.worker, self.owner, self.turns = worker, owner, 0
        self.found: Records | None = None

    def tick(self) -> int:
        if self.turns:
            packet = to_owner(self.owner.recv(MAX_PACKET, socket.MSG_DONTWAIT))
            assert isinstance(packet, Records)
            self.found = packet
        return 0

    def turn(self, until: int) -> None:
        self.turns += 1
        self.worker._queue(request(0.0, 1.0))
        self.worker._ended = self.found is not None


def test_a_record_is_on_its_way_before_the_board_says_that_its_request_is_over() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        worker = Worker(theirs, SharedCounters(memoryview(bytearray(SIZE))))
        both = OneEnd(worker, ours)
        worker._loop(both, both)  # type: ignore[arg-type]
        assert both.found is not None and both.found.records == [request(0.0, 1.0)]
