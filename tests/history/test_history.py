"""The history: what is written is found, thinned and bounded, whatever the file was like before."""

import contextlib
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.history.database import FILE, DamagedHistory, HistoryError, NewerHistory, set_aside
from llmtop.history.history_reader import HistoryReader
from llmtop.history.history_writer import HistoryWriter, Identity
from llmtop.tui.history.past import fill
from llmtop.tui.store.store import EngineTrack

BEGAN = 1_800_000_000.0
LLAMA = Identity("llama", "vllm", model="org/model-8b", owned=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history"


@pytest.fixture
def writer(folder: Path) -> Iterator[HistoryWriter]:
    made = HistoryWriter(folder)
    yield made
    made.close()


def write(writer: HistoryWriter, seconds: range) -> None:
    for second in seconds:
        writer.add(LLAMA, BEGAN + second, {"running": float(second % 100), "kv_usage": None})
        if second % 50 == 49 or second == seconds[-1]:
            writer.commit(BEGAN + second)


def track() -> EngineTrack:
    return EngineTrack("llama", "vllm", "vLLM", "http://127.0.0.1:8000", True)


def test_a_screen_opens_with_what_was_before(folder: Path, writer: HistoryWriter) -> None:
    write(writer, range(100))
    writer.mark(LLAMA, Mark(BEGAN + 50, "max_num_seqs 128 -> 256", effect=True))
    writer.event(Event(BEGAN + 50, "change", "max_num_seqs 128 -> 256 (by ann@pts/3)"))
    writer.commit(BEGAN + 100)
    found = track()
    found.record("running", BEGAN + 99.5, 7.0)  # its own first number
    with HistoryReader(folder) as reader:
        fill(found, reader.past("llama", "vllm", BEGAN + 100, 1200))
        events = reader.events(BEGAN + 100)
    running = list(found.series["running"])
    assert running[0] == (BEGAN, 0.0) and running[99] == (BEGAN + 99, 99.0)
    assert running[-1] == (BEGAN + 99.5, 7.0)
    assert [mark.label for mark in found.marks] == ["max_num_seqs 128 -> 256"]
    assert events[0].text.endswith("ann@pts/3)")


def test_what_is_past_is_not_shown_as_now(folder: Path, writer: HistoryWriter) -> None:
    write(writer, range(10))
    found = track()
    with HistoryReader(folder) as reader:
        fill(found, reader.past("llama", "vllm", BEGAN + 600, 1200))
    assert found.series["running"].last is None


def test_files_are_for_their_owner_alone(folder: Path, writer: HistoryWriter) -> None:
    write(writer, range(3))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_what_is_old_is_thinned_to_its_lowest_mean_and_highest(
    folder: Path, writer: HistoryWriter
) -> None:
    write(writer, range(8000))
    with HistoryReader(folder) as reader:
        past = reader.past("llama", "vllm", BEGAN + 8000, 1e9)
    assert past.fine["running"].times[0] > BEGAN + 600  # two hours second by second
    ten, minute = past.thinned[10]["running"], past.thinned[60]["running"]
    assert ten.times[0] == BEGAN and (ten.low[0], ten.mean[0], ten.high[0]) == (0.0, 4.5, 9.0)
    assert minute.high[0] == 59.0 and len(minute.times) == 133
    assert "kv_usage" not in past.fine  # never known


def test_a_zoom_to_an_hour_reads_stretches(folder: Path, writer: HistoryWriter) -> None:
    write(writer, range(5000))
    found = track()
    with HistoryReader(folder) as reader:
        fill(found, reader.past("llama", "vllm", BEGAN + 5000, 1200))
    series = found.series["running"]
    assert series.covering(BEGAN + 4000).span_s == 0  # 20 minutes, point by point
    assert series.covering(BEGAN + 1400).span_s == 10
    seen = series.summary(BEGAN + 1400, BEGAN + 1460)
    assert seen is not None and (seen.low, seen.high, seen.n) == (0.0, 59.0, 60)


def test_the_file_stays_below_its_bound(folder: Path) -> None:
    writer = HistoryWriter(folder, most_bytes=200_000)
    for number in range(10):
        who = Identity(f"engine-{number}", "vllm")
        for second in range(300):
            writer.add(who, BEGAN + second, {f"series-{n}": 1.0 * n for n in range(20)})
        writer.commit(BEGAN + number * 61 + 300)
    writer.close()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    check = sqlite3.connect(folder / FILE)
    pages, free = (
        check.execute(f"PRAGMA {n}").fetchone()[0] for n in ("page_count", "freelist_count")
    )
    assert (pages - free) * 4096 < 300_000
    check.close()


def test_a_killed_writer_loses_nothing_that_was_committed(folder: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            write(HistoryWriter(folder), range(75))
        finally:
            os._exit(9)  # without closing anything
    os.waitpid(pid, 0)
    writer = HistoryWriter(folder)
    write(writer, range(75, 130))
    with HistoryReader(folder) as reader:
        past = reader.past("llama", "vllm", BEGAN + 200, 1200)
    writer.close()
    assert len(past.fine["running"].times) == 130
    assert past.thinned[60]["running"].high[1] == 99.0  # the minute in which it was killed is whole


def test_a_newer_history_is_left_alone(folder: Path, writer: HistoryWriter) -> None:
    writer.close()
    other = sqlite3.connect(folder / FILE)
    other.execute("PRAGMA user_version = 9")
    other.close()
    before = (folder / FILE).read_bytes()
    with pytest.raises(NewerHistory, match="newer llmtop"):
        HistoryReader(folder)
    with pytest.raises(NewerHistory) as caught:
        HistoryWriter(folder)
    assert "update llmtop" in caught.value.hint
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize(
    "data", [b"not a database" * 100, os.urandom(9000)], ids=["text", "random"]
)
def test_a_damaged_history_is_one_clear_error(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder / FILE).write_bytes(data)
    with pytest.raises(DamagedHistory, match="damaged"):
        HistoryReader(folder)
    with pytest.raises(DamagedHistory):
        HistoryWriter(folder)


def test_damaged_bytes_of_a_history_never_cost_more_than_an_error(folder: Path) -> None:
    writer, chance = HistoryWriter(folder), random.Random(7)
    write(writer, range(200))
    writer.mark(LLAMA, Mark(BEGAN + 1, "load"))
    writer.event(Event(BEGAN + 1, "info", "ready"))
    writer.close()
    whole = (folder / FILE).read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 20, 200))):
            data[chance.randrange(min(len(data), 12 * 4096))] = chance.randrange(256)
        for path in folder.iterdir():
            path.unlink()
        (folder / FILE).write_bytes(data)
        with contextlib.suppress(HistoryError), HistoryReader(folder) as reader:
            reader.past("llama", "vllm", BEGAN + 300, 1200)
            reader.events(BEGAN + 300)
        with contextlib.suppress(HistoryError):
            again = HistoryWriter(folder)
            with contextlib.suppress(HistoryError):
                write(again, range(300, 303))
            again.close()


def test_a_history_without_one_of_its_tables_is_damaged_and_can_be_set_aside(
    folder: Path, writer: HistoryWriter
) -> None:
    writer.close()
    other = sqlite3.connect(folder / FILE)
    other.execute("DROP TABLE options")
    other.close()
    again = HistoryWriter(folder)
    with pytest.raises(DamagedHistory):
        again.option(LLAMA, BEGAN, "max_num_seqs", 64)
    again.close()
    kept = set_aside(folder)
    HistoryWriter(folder).close()
    assert kept.exists() and (folder / FILE).exists()


def test_a_database_of_somebody_else_is_not_written(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    other = sqlite3.connect(folder / FILE)
    other.execute("CREATE TABLE precious (x)")
    other.close()
    with pytest.raises(DamagedHistory, match="not a history of llmtop"):
        HistoryWriter(folder)


def test_without_a_folder_of_its_own_there_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "history").symlink_to(tmp_path)
    with pytest.raises(HistoryError, match="not a private folder"):
        HistoryWriter(tmp_path / "history")
    with HistoryReader(tmp_path / "absent") as reader:
        assert not reader.past("a", "vllm", BEGAN, 1200).fine


def test_hostile_texts_of_the_file_are_safe_to_show(folder: Path, writer: HistoryWriter) -> None:
    writer.mark(LLAMA, Mark(BEGAN, "\x1b]0;owned\x07x\u202e"))
    writer.event(Event(BEGAN, "info", "\x1b[31mred" + "y" * 5000))
    writer.add(LLAMA, BEGAN, {"running": 1e300})
    writer.commit(BEGAN)
    with HistoryReader(folder) as reader:
        past, events = reader.past("llama", "vllm", BEGAN + 1, 1200), reader.events(BEGAN + 1)
    assert past.marks[0].label == "x\ufffd"
    assert events[0].text.startswith("redy") and len(events[0].text) < 1100
    assert all(value != value for value in past.fine["running"].values)


def test_a_full_disk_is_said_and_what_was_written_stays(
    folder: Path, writer: HistoryWriter
) -> None:
    write(writer, range(50))
    pages = writer._db.execute("PRAGMA page_count").fetchone()[0]
    writer._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(HistoryError, match="disk is full"):
        for second in range(50, 5000):
            writer.add(LLAMA, BEGAN + second, {f"series-{n}": 1.0 for n in range(50)})
            writer.commit(BEGAN + second)
    with HistoryReader(folder) as reader:
        past = reader.past("llama", "vllm", BEGAN + 50, 1200)
    assert len(past.fine["running"].times) == 50
