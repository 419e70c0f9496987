"""The recorder as a process: it comes with the first engine, goes with the last, and survives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.state.attached_engines import FRESH_S, OVER_S, AttachedEngines
from llmtop.history.history_reader import HistoryReader
from llmtop.operations.recorder_process import RecorderKeeper, take_lock
from tests.llmtop_process import Home, free_port

pytestmark = pytest.mark.process
PATIENCE_S = 60.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home.make(tmp_path, {"LLMTOP_HISTORY": "on"})
    yield made
    made.stop_all()
    assert eventually(lambda: not recorders(made))


def eventually(true: object) -> bool:
    assert callable(true)
    ends = time.monotonic() + PATIENCE_S
    while not (found := true()) and time.monotonic() < ends:
        time.sleep(0.1)
    return bool(found)


def recorders(home: Home) -> list[int]:
    """The recorders of this home, by what they were started with."""
    mark = f"XDG_STATE_HOME={home.folder / 'state'}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_one = b"llmtop.recorder" in (path / "cmdline").read_bytes()
            if is_one and mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def folder(home: Home) -> Path:
    return home.folder / "state" / "llmtop" / "history"


def seconds(home: Home, name: str = "one") -> list[float]:
    with HistoryReader(folder(home)) as reader:
        past = reader.past(name, "sim", time.time() + 1, 1200)
    return list(past.fine["running"].times) if "running" in past.fine else []


def start(home: Home) -> None:
    done = home.run(
        "run",
        "sim",
        "--name",
        "one",
        "--port",
        str(free_port()),
        "--detach",
        "--",
        "--startup-s",
        "0.1",
    )
    assert done.code == 0, done.err


@pytest.mark.more
def test_it_is_there_with_an_engine_and_gone_after_it(home: Home) -> None:
    start(home)
    assert eventually(lambda: len(recorders(home)) == 1)
    assert eventually(lambda: len(seconds(home)) >= 2)
    home.run("load", "one", "--shape", "hold 4 for 3s", "--no-calibrate")
    with HistoryReader(folder(home)) as reader:
        assert eventually(
            lambda: "client_ttft_p95" in reader.past("one", "sim", time.time(), 1200).fine
        )
        past, events = reader.past("one", "sim", time.time(), 1200), reader.events(time.time())
    assert "load" in [mark.label for mark in past.marks]
    assert any("hold 4 for 3s" in event.text for event in events)
    # A killed one is started again by the next start of an engine, or by an open screen.
    os.kill(recorders(home)[0], signal.SIGKILL)
    assert eventually(lambda: not recorders(home))
    before = len(seconds(home))
    # As an open screen does, again and again: a dying process holds its lock a little longer.
    keeper = RecorderKeeper(folder(home), home.environ, steady=lambda: time.monotonic() * 50)
    assert eventually(lambda: keeper.ensure_running() == "" and len(seconds(home)) > before)
    keeper.detach()
    home.run("stop", "one", "--grace", "2")
    assert eventually(lambda: not recorders(home))


@pytest.mark.more
def test_kill_9_in_any_order_loses_no_second_before_the_last(home: Home) -> None:
    """Recorder, screen's keeper and engine, thirty times."""
    import random
    import sqlite3

    chance, known = random.Random(3), 0
    start(home)
    keeper = RecorderKeeper(folder(home), home.environ, steady=lambda: time.monotonic() * 50)
    for _ in range(30):
        # An open screen does this at each look: the last recorder may still hold its lock.
        assert eventually(
            lambda least=known: (
                keeper.ensure_running() is not None
                and bool(recorders(home))
                and len(seconds(home)) > least
            )
        )
        known = len(seconds(home))
        victims = [*recorders(home)]
        if chance.random() < 0.3:
            engines = home.run("ps", "--json").json["engines"]
            victims += [one["pid"] for one in engines if one["state"] == "ready"]
        chance.shuffle(victims)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not recorders(home))
        assert len(seconds(home)) >= known
        check = sqlite3.connect(folder(home) / "history.db")
        assert check.execute("PRAGMA quick_check").fetchone() == ("ok",)
        check.close()
        if len(victims) > 1:
            home.run("stop", "one", "--grace", "1")
            start(home)
    keeper.detach()


def test_there_is_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    place = tmp_path / "state" / "history"
    first = take_lock(place)
    assert first is not None and take_lock(place) is None
    os.close(first)
    second = take_lock(place)
    assert second is not None
    os.close(second)


def test_a_home_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    now = [0.0]
    keeper = RecorderKeeper(tmp_path / "state" / "history", {}, steady=lambda: now[0])
    assert "no history is kept" in keeper.ensure_running()
    now[0] += 10
    assert keeper.ensure_running() == ""


def test_a_newer_history_ends_it_with_a_reason(tmp_path: Path) -> None:
    import sqlite3

    home = Home.make(tmp_path, {"LLMTOP_HISTORY": "on"})
    place = folder(home)
    place.mkdir(mode=0o700, parents=True)
    other = sqlite3.connect(place / "history.db")
    other.execute("PRAGMA user_version = 9")
    other.execute("CREATE TABLE x (y)")
    other.close()
    now = [0.0]
    keeper = RecorderKeeper(place, home.environ, steady=lambda: now[0])
    assert keeper.ensure_running() == ""

    def reason() -> str:
        now[0] += 100
        return keeper.ensure_running()

    said: list[str] = []

    def heard() -> bool:
        said.append(reason())
        return bool(said[-1])

    assert eventually(heard)
    keeper.detach()
    assert "newer llmtop" in said[-1]
    assert eventually(lambda: not recorders(home))


def test_what_it_never_needs_is_not_in_its_memory() -> None:
    unwanted = ("httpx", "textual", "rich", "llmtop.tui.history.recording")
    code = (
        "import sys, llmtop.recorder.process\n"
        f"print([one for one in {unwanted!r} if sys.modules.get(one) is not None])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    keeper = RecorderKeeper(tmp_path / "history", {"LLMTOP_HISTORY": "off"})
    assert keeper.ensure_running() == ""
    assert not (tmp_path / "history").exists()


def test_engines_at_urls_are_noted_while_a_screen_shows_them(tmp_path: Path) -> None:
    now = [1000.0]
    engines = AttachedEngines(tmp_path / "state", lambda: now[0])
    assert engines.fresh() == []
    for url in ("http://127.0.0.1:8000", "http://u:secret@far:8000", "file:///etc/passwd"):
        engines.note(url)
    assert engines.fresh() == ["http://127.0.0.1:8000"]
    (file,) = (tmp_path / "state" / "attached").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    (file.parent / "other.json").write_bytes(b"[" * 100)
    now[0] += FRESH_S + 1
    assert engines.fresh() == []
    now[0] += OVER_S
    assert engines.fresh() == [] and not file.exists()


@pytest.mark.more
def test_an_engine_at_a_url_is_recorded_while_a_screen_shows_it(home: Home, tmp_path: Path) -> None:
    start(home)
    url = home.run("ps", "--json").json["engines"][0]["url"]
    (tmp_path / "other").mkdir()
    other = Home.make(tmp_path / "other", {"LLMTOP_HISTORY": "on"})
    keeper = RecorderKeeper(folder(other), other.environ, steady=lambda: time.monotonic() * 50)
    engines = AttachedEngines(other.folder / "state" / "llmtop")
    name = url.removeprefix("http://")

    def is_recorded() -> bool:
        engines.note(url)  # as a screen does, again and again
        return keeper.ensure_running() == "" and len(seconds(other, name)) > 2

    assert eventually(is_recorded)
    # Nobody shows it any more: the recorder has nothing to do.
    (other.folder / "state" / "llmtop" / "attached").rename(tmp_path / "gone")
    assert eventually(lambda: not recorders(other))
    keeper.detach()
