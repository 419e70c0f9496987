"""Recordings and the history on filesystems that are really full, and really read-only."""

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.history.database import HistoryError
from llmtop.history.fact_codec import RecordingError
from llmtop.history.facts import Fact, Head, SeriesFact
from llmtop.history.history_reader import HistoryReader
from llmtop.history.history_writer import HistoryWriter, Identity
from llmtop.history.recording_reader import Recording
from llmtop.history.recording_writer import RecordingWriter
from llmtop.operations.recorder_process import RecorderKeeper

pytestmark = [pytest.mark.more, pytest.mark.process]

BEGAN = 1_800_000_000.0
LLAMA = Identity("llama", "vllm")
FAR = 200_000  # seconds: more than 1 MiB holds


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no filesystem can be mounted here: {done.stderr.strip()[:200]}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    place = tmp_path / "small"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def read_only(place: Path) -> None:
    mount("-o", "remount,ro", str(place))


def beat(second: int) -> list[Fact]:
    values = {f"series-{n}": (second * 7919 + n * 104729) % 9973 / 7 for n in range(40)}
    return [SeriesFact(BEGAN + second, "llama", values)]


def fill(write: Callable[[int], None]) -> tuple[int, LlmtopError]:
    """Write second after second; the last one that was written, and why there are no more."""
    for second in range(FAR):
        try:
            write(second)
        except LlmtopError as error:
            return second - 1, error
    raise AssertionError("the filesystem is never full")


def test_a_recording_that_fills_the_disk_is_read_up_to_its_last_second(small: Path) -> None:
    path = small / "run.llmtop"
    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN))
    last, error = fill(lambda second: writer.write(BEGAN + second, beat(second)))
    assert isinstance(error, RecordingError) and "no space left" in error.message
    with Recording(path) as recording:
        times = [fact.time - BEGAN for fact in recording.facts(kinds={"series"})]
    assert last > 60 and times[: last + 1] == list(range(last + 1))


def test_a_history_that_fills_the_disk_keeps_every_second_before_the_last(small: Path) -> None:
    writer = HistoryWriter(small / "history")

    def write(second: int) -> None:
        writer.add(LLAMA, BEGAN + second, {f"series-{n}": float(second) for n in range(40)})
        writer.commit(BEGAN + second)

    last, error = fill(write)
    assert isinstance(error, HistoryError) and "disk is full" in error.message
    writer.close()
    check = sqlite3.connect(small / "history" / "history.db")
    assert check.execute("PRAGMA quick_check").fetchone() == ("ok",)
    check.close()
    with HistoryReader(small / "history") as reader:
        past = reader.past("llama", "vllm", BEGAN + FAR, FAR)
    assert last > 60 and list(past.fine["series-0"].values)[: last + 1] == list(range(last + 1))


def test_what_is_read_only_is_read_and_not_written(small: Path) -> None:
    path = small / "run.llmtop"
    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN))
    for second in range(10):
        writer.write(BEGAN + second, beat(second))
    writer.close(BEGAN + 9)
    history = HistoryWriter(small / "history")
    history.add(LLAMA, BEGAN, {"running": 3.0})
    history.commit(BEGAN)
    history.close()
    read_only(small)
    with Recording(path) as recording:
        assert recording.duration_s == 9 and not recording.remark
    with HistoryReader(small / "history") as reader:
        assert list(reader.past("llama", "vllm", BEGAN + 1, 60).fine["running"].values) == [3.0]
    with pytest.raises(LlmtopError, match="cannot be written: read-only"):
        RecordingWriter(small / "other.llmtop", Head(BEGAN, began=BEGAN))
    with pytest.raises(HistoryError, match="no history is kept: read-only"):
        HistoryWriter(small / "history")


def test_a_read_only_home_keeps_no_history_and_says_so_once(small: Path) -> None:
    read_only(small)
    now = [0.0]
    keeper = RecorderKeeper(small / "llmtop" / "history", {}, steady=lambda: now[0])
    assert "no history is kept: read-only file system" in keeper.ensure_running()
    now[0] += 10
    assert keeper.ensure_running() == ""
