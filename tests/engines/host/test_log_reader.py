"""Logs: hostile text, bounded memory, rotation under a writer and a reader."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from llmtop.engines.host import log_reader
from llmtop.engines.host.log_reader import LineReader, LogCursor, LogFeed
from llmtop.engines.host.safe_text import LINE_CHARS, clean


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1;2q data\x1b\\kept", "kept"),
        ("\x9b31mred", "red"),
        ("\x1b]0;never ended", ""),
        ("bell\x07 back\x08", "bell\ufffd back\ufffd"),
        ("a\tb", "a   b"),
        ("right\u202eleft", "right\ufffdleft"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("\x1b", ""),
        ("größer 中文 🚀", "größer 中文 🚀"),
    ],
)
def test_what_would_act_on_a_terminal_is_taken_out(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


def test_long_lines_are_cut_with_a_note() -> None:
    shown = clean("x" * (LINE_CHARS + 1234))
    assert shown == "x" * LINE_CHARS + " … (1,234 more)"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_the_bytes_arrive(size: int) -> None:
    data = "one\r\ntwo\n\n 10%\r 20%\r 30%\nümlaut\nrest".encode() + b"\xff"
    reader = LineReader()
    lines = [line for at in range(0, len(data), size) for line in reader.feed(data[at : at + size])]
    assert lines == ["one", "two", "", " 10%", " 20%", " 30%", "ümlaut"]
    assert reader.rest() == "rest\ufffd"
    assert reader.rest() is None


def test_a_line_of_a_hundred_megabytes_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)  # a sparse file of NUL bytes
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    tracemalloc.start()
    lines = list(log_reader.read_lines(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines[1] == "last"
    assert lines[0].endswith(f"(line of {100 * 2**20:,} bytes)") and len(lines[0]) < 4100
    assert peak < 4 * 2**20


def test_tail_gives_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)) + "unended")
    assert log_reader.tail(path, 3) == ["line 99998", "line 99999", "unended"]
    assert log_reader.tail(path, 0) == []
    assert log_reader.tail(tmp_path / "none", 3) == []


def test_tail_of_one_endless_line_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"x" * 2**23)
    (line,) = log_reader.tail(path, 10)
    assert len(line) < 4100


class Reading:
    """A follower in a thread, as ``llmtop logs -f`` is one."""

    def __init__(self, path: Path, lines: int = 0) -> None:
        self.stop = threading.Event()
        self.seen: list[str] = []
        self._changed = threading.Condition()
        self._path = path
        self._lines = lines
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for line in log_reader.follow(self._path, self.stop, lines=self._lines, poll_s=0.01):
            with self._changed:
                self.seen.append(line)
                self._changed.notify()

    def wait_for(self, line: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: line in self.seen, timeout=30), self.seen

    def end(self) -> None:
        self.stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def test_follow_goes_on_after_rotation_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("one\ntwo\nthr")
    reading = Reading(path, lines=1)
    try:
        reading.wait_for("two")
        with path.open("a") as engine:
            engine.write("ee\n")
            engine.flush()
            reading.wait_for("three")
            assert log_reader.rotate(path, limit=5)
            engine.write("after\n")
            engine.flush()
            reading.wait_for("after")
        path.unlink()
        path.write_text("a new file, and longer than the one before\n")
        reading.wait_for("a new file, and longer than the one before")
    finally:
        reading.end()
    assert reading.seen[:3] == ["two", "three", "after"]


def test_follow_waits_for_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    reading = Reading(path, lines=10)  # the file may be there before the first look
    try:
        path.write_text("first\n")
        reading.wait_for("first")
    finally:
        reading.end()


def test_rotation_keeps_one_older_log_and_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, b"first\n")
    assert not log_reader.rotate(path, limit=6)
    assert log_reader.rotate(path, limit=5)
    os.write(fd, b"second\n")
    assert path.read_bytes() == b"second\n"
    assert log_reader.older(path).read_bytes() == b"first\n"
    assert log_reader.rotate(path, limit=5)
    assert log_reader.older(path).read_bytes() == b"second\n"
    assert sorted(os.listdir(tmp_path)) == ["engine.log", "engine.log.1"]
    assert log_reader.older(path).stat().st_mode & 0o777 == 0o600
    os.close(fd)


def test_a_rotation_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("kept\n")
    path.with_name("engine.log.rotating").symlink_to("/dev/full")
    assert not log_reader.rotate(path, limit=1)
    assert path.read_text() == "kept\n"


def test_a_cursor_reads_a_long_log_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("one\ntwo\nthree\n")
    cursor = LogCursor(path, offset=4)
    assert cursor.read(most=5) == ["two"]
    assert cursor.read() == ["three"]
    assert cursor.read() == []


def test_a_feed_gives_the_end_once_then_what_is_new_also_of_another_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    first.write_text("a\nb\nc\nhalf")
    where = [first]
    feed = LogFeed(lambda: where[0], 2)
    assert feed.read() == ["b", "c"] and feed.read() == []
    with first.open("a") as file:
        file.write(" done\nnext\n")
    assert feed.read() == ["half done", "next"]
    second.write_text("1\n2\n3\n")
    where[0] = second
    assert feed.read() == ["2", "3"] and feed.read() == []
    where[0] = tmp_path / "no such.log"
    assert feed.read() == []
