"""Recordings: what was written is read again, also from a file that was cut, and never blindly."""

import gzip
import json
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.samples import EngineSample
from llmtop.history.fact_codec import RecordingError, decode, encode
from llmtop.history.facts import (
    EngineFact,
    Fact,
    Head,
    MarkFact,
    SampleFact,
    SeriesFact,
    StepsFact,
)
from llmtop.history.load_rows import row_of, snapshot_of
from llmtop.history.members import header
from llmtop.history.recording_reader import Recording
from llmtop.history.recording_writer import RecordingWriter
from tests.conftest import snapshot

BEGAN = 1_800_000_000.0
SECONDS = 200


def beat(second: int) -> list[Fact]:
    time = BEGAN + second
    return [
        SampleFact(time, "llama", EngineSample(time, 10.0, running=second)),
        SeriesFact(time, "llama", {"running": float(second), "waiting": None}),
    ]


def write(path: Path, seconds: int = SECONDS, end: bool = True) -> RecordingWriter:
    def keyframe(time: float) -> Iterator[Fact]:
        yield EngineFact(time, "llama", "vllm", model="org/model-8b")

    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN, llmtop="0.9"), keyframe)
    for second in range(seconds):
        writer.write(BEGAN + second, beat(second))
    if end:
        writer.close(BEGAN + seconds - 1)
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.llmtop"


def test_what_was_written_is_read(path: Path) -> None:
    write(path)
    with Recording(path) as recording:
        assert recording.head.llmtop == "0.9"
        assert recording.duration_s == SECONDS - 1
        assert recording.remark == ""
        samples = list(recording.facts(kinds={"sample"}))
        assert [
            one.sample.running for one in samples if isinstance(one, SampleFact) and one.sample
        ] == list(range(SECONDS))
        assert recording.engines()["llama"].model == "org/model-8b"
    assert path.stat().st_mode & 0o777 == 0o600


def test_any_gzip_program_reads_it(path: Path) -> None:
    write(path)
    lines = gzip.decompress(path.read_bytes()).splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "head" and kinds[-1] == "end" and kinds.count("sample") == SECONDS


def test_a_moment_is_read_without_those_far_before_it(path: Path) -> None:
    write(path)
    with Recording(path) as recording:
        facts = list(recording.facts(BEGAN + 150, BEGAN + 155, {"series"}))
        assert [one.time - BEGAN for one in facts] == [150, 151, 152, 153, 154, 155]
        assert recording.start_before(BEGAN + 150) == BEGAN + 120


@pytest.mark.parametrize("cut", [1, 5, 50, 400])
def test_a_recording_whose_writer_was_killed_is_read_to_its_last_second(
    path: Path, cut: int
) -> None:
    write(path, end=False)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    with Recording(path) as recording:
        assert recording.duration_s >= SECONDS - 2 - cut // 10
        assert "not ended" in recording.remark or "cut off" in recording.remark
        assert list(recording.facts(kinds={"sample"}))


def test_a_full_disk_ends_it_with_one_line_and_all_before_is_there(path: Path) -> None:
    writer = write(path, 100, end=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, before[1]))
    try:
        with pytest.raises(RecordingError, match="not complete"):
            for second in range(100, 200):
                writer.write(BEGAN + second, beat(second))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    with Recording(path) as recording:
        assert recording.duration_s >= 98


def test_a_recording_is_never_written_over(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write(path)
    assert path.read_text() == "mine"


def member(*lines: object) -> bytes:
    import zlib

    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(text) + deflate.flush()
    tail = zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return header(len(header(0, 0)) + len(body) + 8, BEGAN) + body + tail


HEAD = {"kind": "head", "time": BEGAN, "format": 1, "llmtop": "0.9", "began": BEGAN}


def test_a_newer_format_says_what_it_needs(path: Path) -> None:
    path.write_bytes(member({**HEAD, "format": 7, "llmtop": "3.1"}))
    with pytest.raises(RecordingError, match=r"format 7, written by llmtop 3\.1") as caught:
        Recording(path)
    assert "update llmtop" in caught.value.hint


def test_kinds_and_keys_of_later_versions_are_passed_over(path: Path) -> None:
    later = {"kind": "dream", "time": BEGAN + 1, "x": 1}
    mark = {
        "kind": "mark",
        "time": BEGAN + 2,
        "name": "a",
        "new": 1,
        "mark": {"time": BEGAN + 2, "label": "x"},
    }
    path.write_bytes(member(HEAD, later, mark))
    with Recording(path) as recording:
        found = list(recording.facts())
    assert [type(one) for one in found] == [Head, MarkFact]


def test_texts_of_a_recording_are_safe_to_show(path: Path) -> None:
    label = "\x1b]0;owned\x07red\x1b[31m\u202e"
    mark = {"kind": "mark", "time": BEGAN, "name": "a", "mark": {"time": BEGAN, "label": label}}
    path.write_bytes(member(HEAD, mark))
    with Recording(path) as recording:
        found = [one for one in recording.facts() if isinstance(one, MarkFact)]
    assert found[0].mark.label == "red\ufffd"


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "series", "time": BEGAN, "name": "a", "values": {"running": 1e300}},
        {"kind": "series", "time": -1e300, "name": "a", "values": {}},
        {"kind": "series", "time": BEGAN, "name": "a", "values": {"running": "many"}},
        {"kind": "steps", "time": BEGAN, "name": "a", "columns": {"a": [1], "b": [1, 2]}},
        ["no", "object"],
        {"time": BEGAN},
    ],
)
def test_impossible_lines_are_one_clear_error(path: Path, line: object) -> None:
    path.write_bytes(member(HEAD, line))
    with pytest.raises(RecordingError, match="the recording holds"), Recording(path) as recording:
        list(recording.facts())


def test_a_bomb_costs_bounded_memory(path: Path) -> None:
    import zlib

    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    text = json.dumps(HEAD).encode() + b"\n" + b" " * (70 * 2**20)
    body = deflate.compress(text) + deflate.flush()
    path.write_bytes(header(len(header(0, 0)) + len(body) + 8, BEGAN) + body + b"\0" * 8)
    with Recording(path) as recording:
        assert "larger than 64 MiB" in recording.remark
        with pytest.raises(RecordingError, match="larger than 64 MiB"):
            list(recording.facts())


def test_a_file_of_many_gigabytes_is_not_read_into_memory(path: Path) -> None:
    write(path)
    with path.open("ab") as file:
        file.write(header(0, BEGAN + SECONDS))
        file.truncate(60 * 2**30)  # sparse: it takes no room
    with Recording(path) as recording:
        assert recording.duration_s == pytest.approx(SECONDS, abs=2)
        assert "killed" in recording.remark


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x1f\x8b" * 40, gzip.compress(b"{}\n", mtime=0), bytes(200)]
)
def test_other_files_are_no_recordings(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(LlmtopError):
        Recording(path)


def test_a_folder_or_pipe_is_no_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(UsageError):
            Recording(tmp_path / name)


def test_damaged_bytes_never_cost_more_than_an_error(path: Path) -> None:
    write(path)
    data, chance = path.read_bytes(), random.Random(5)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        try:
            with Recording(path) as recording:
                list(recording.facts())
        except LlmtopError:
            pass


def test_a_load_comes_back_as_it_was() -> None:
    load = snapshot()
    line = __import__("msgspec").json.encode(row_of(load))
    from llmtop.history.load_rows import LoadRow

    again = snapshot_of(__import__("msgspec").json.decode(line, type=LoadRow))
    assert again == load


def test_a_line_that_is_cut_is_an_error() -> None:
    with pytest.raises(RecordingError):
        decode(b'{"kind":"series","time":1')


def test_each_minute_begins_with_its_summary(path: Path) -> None:
    from llmtop.history.facts import SeriesSummary, SummaryFact

    def keyframe(time: float) -> Iterator[Fact]:
        yield SummaryFact(time, "llama", {"running": SeriesSummary(1.0, 2.0, 3.0, 60)})

    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN), keyframe)
    for second in range(SECONDS):
        writer.write(BEGAN + second, beat(second))
    writer.close(BEGAN + SECONDS)
    with Recording(path) as recording:
        lines = recording.lines(BEGAN, BEGAN + SECONDS, ("summary",))
        found = [fact for fact in map(decode, lines) if isinstance(fact, SummaryFact)]
        assert [one.time for one in found] == [BEGAN, BEGAN + 60, BEGAN + 120, BEGAN + 180]
        assert found[0].values["running"].high == 3.0


def steps(**changed: tuple[float | None, ...]) -> StepsFact:
    """Three steps: 6 ms long each, 1 s idle before the last."""
    columns: dict[str, tuple[float | None, ...]] = {
        "end": (-1.0126, -1.0066, -0.0006),
        "duration_s": (0.006, 0.006, 0.00601),
        "idle_s": (0.0, 0.0, 1.0),
        "running": (4, 4, 5),
        "preempted": (0, 0, 0),
        "context_tokens": (4000, 4004, 512),
        "launch_s": (None, 0.0012, 0.00011),
        "a_later_column": (1.25, None, 7),
    }
    return StepsFact(BEGAN, "llama", {**columns, **changed}, rank=1, lost=2)


def test_steps_come_back_as_they_were() -> None:
    one = StepsFact(BEGAN, "llama", {"end": (-0.5,), "running": (3,)})
    for fact in (steps(), steps(end=(None, None, -0.1)), one):
        assert decode(encode(fact)) == fact


def test_steps_are_stored_as_small_numbers() -> None:
    stored = json.loads(encode(steps()))
    assert stored["coded"] == 1 and stored["same"] == {"preempted": 0}
    assert stored["columns"]["end"] == [-101260, 0, -1]
    assert stored["columns"]["context_tokens"] == [4000, 4, -3492]
    assert stored["columns"]["launch_s"] == [None, 1200, 110]


def test_steps_of_earlier_and_later_versions_are_read_or_passed_over() -> None:
    plain = {"kind": "steps", "time": BEGAN, "name": "x", "columns": {"end": [-0.5, -0.1]}}
    found = decode(json.dumps(plain).encode())
    assert isinstance(found, StepsFact) and found.columns["end"] == (-0.5, -0.1)
    later = decode(json.dumps({**plain, "coded": 2}).encode())
    assert isinstance(later, StepsFact) and not later.columns


@pytest.mark.parametrize(
    "columns",
    [
        {"end": [1e300]},
        {"end": [1e300, 1e300]},
        {"end": [1, 1], "duration_s": [1e308, 1e308]},
        {"end": [1, 1], "context_tokens": [1e15, 1e15]},
        {"end": [None, 1]},
        {"duration_s": [1]},
        {"end": [1, 2], "duration_s": [1]},
    ],
)
def test_impossible_steps_cost_one_clear_line(columns: object) -> None:
    line = {"kind": "steps", "time": BEGAN, "name": "x", "coded": 1, "columns": columns}
    with pytest.raises(RecordingError, match=r"of steps|of a step"):
        decode(json.dumps(line).encode())
