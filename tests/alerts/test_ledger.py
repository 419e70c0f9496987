"""Of several processes that see an alert, one delivers its begin and one its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop.alerts.expression import Snapshot, parse
from llmtop.alerts.ledger import FILE, FORGOTTEN_S, Ledger
from llmtop.alerts.rules import Alert, Alerts, Rule

NOW = 1_800_000_000.0
RULE = Rule("stuck", parse("hung"))


class Watcher:
    """One process. what: was seen in each look."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        self.ledger = Ledger(folder, lambda: clock[0])
        self.alerts = Alerts([RULE], self.ledger.since)
        self._clock = clock

    def look(self, hung: bool) -> tuple[list[bool], list[bool]]:
        """What it shows and what it delivers: True for a begin, False for an end."""
        words = frozenset({"hung"}) if hung else frozenset[str]()
        shown = self.alerts.evaluate({"llama": Snapshot("ready", words)}, self._clock[0])
        self.ledger.keep(self.alerts.active)
        return (
            [one.begins for one in shown],
            [one.begins for one in shown if self.ledger.claim(one)],
        )


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


def test_a_screen_beside_a_watch_delivers_nothing_twice(tmp_path: Path, clock: list[float]) -> None:
    watch, screen = Watcher(tmp_path, clock), Watcher(tmp_path, clock)
    assert watch.look(hung=True) == ([True], [True])
    clock[0] += 0.5
    assert screen.look(hung=True) == ([True, True], []) or screen.alerts.active
    clock[0] += 20
    assert screen.look(hung=False) == ([False], [False])
    clock[0] += 0.5
    assert watch.look(hung=False) == ([False], [])
    clock[0] += 5
    # The next one is another alert.
    assert screen.look(hung=True) == ([True], [True])
    assert watch.look(hung=True) == ([True], [])


def test_a_late_look_at_an_alert_that_is_over_delivers_nothing(
    tmp_path: Path, clock: list[float]
) -> None:
    quick, slow = Watcher(tmp_path, clock), Watcher(tmp_path, clock)
    slow.look(hung=False)
    quick.look(hung=True)
    clock[0] += 1
    assert quick.look(hung=False) == ([False], [False])
    seen_late = Alert(RULE, "llama", True, clock[0] + 0.2, clock[0] - 0.3)
    assert not slow.ledger.claim(seen_late)


def test_the_next_process_delivers_the_end(tmp_path: Path, clock: list[float]) -> None:
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [True])
    clock[0] += 60
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [])  # killed and started again
    clock[0] += 60
    restarted = Watcher(tmp_path, clock)
    assert restarted.look(hung=False) == ([True, False], [False])


def test_an_alert_that_nobody_watched_begins_again(tmp_path: Path, clock: list[float]) -> None:
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [True])
    clock[0] += FORGOTTEN_S + 1
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [True])


def test_one_that_is_watched_for_long_is_kept(tmp_path: Path, clock: list[float]) -> None:
    watch = Watcher(tmp_path, clock)
    assert watch.look(hung=True) == ([True], [True])
    for _ in range(20):
        clock[0] += 90
        assert watch.look(hung=True) == ([], [])
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [])


def test_without_a_folder_it_is_delivered_all_the_same(tmp_path: Path, clock: list[float]) -> None:
    (tmp_path / "file").write_text("")
    watch = Watcher(tmp_path / "file" / "below", clock)
    assert watch.look(hung=True) == ([True], [True])
    assert watch.look(hung=False) == ([False], [False])


def test_the_file_is_private_and_a_spoilt_one_is_begun_again(
    tmp_path: Path, clock: list[float]
) -> None:
    watch = Watcher(tmp_path, clock)
    watch.look(hung=True)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_bytes(b"\xff{")
    assert Watcher(tmp_path, clock).look(hung=True) == ([True], [True])


def test_a_clock_that_was_set_back_swallows_no_alert(tmp_path: Path, clock: list[float]) -> None:
    watch = Watcher(tmp_path, clock)
    watch.look(hung=True)
    clock[0] += 10
    watch.look(hung=False)
    clock[0] -= 3600
    assert watch.look(hung=True) == ([True], [True])
