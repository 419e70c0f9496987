"""A report of a recording: its charts, its changes, and the results that are in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmtop import LlmtopError
from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.history.facts import (
    EngineFact,
    EventFact,
    Fact,
    Head,
    MarkFact,
    OutcomeFact,
    SeriesFact,
)
from llmtop.history.recording_writer import RecordingWriter
from llmtop.report.recorded import POINTS, read_recording
from llmtop.report.write import write_report
from tests.report.results import HOSTILE, load

BEGAN = 1_800_000_000.0
SECONDS = 2500


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """2,500 s of an engine: 100 tok/s, then 300 from a change at 1,000 s on.

    The load in it was asked for with quotes and a letter that is not ASCII.
    """
    outcome = json.dumps({**load(), "command": 'llmtop load "Zoë"'}).encode()

    def keyframe(time: float) -> Iterator[Fact]:
        yield EngineFact(time, "llama", "vllm", model="org/model-8b", version="0.32.0")
        yield EventFact(time, Event(BEGAN + 5, "info", f"started {HOSTILE}"))

    path = tmp_path / "run.llmtop"
    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN, llmtop="0.9"), keyframe)
    for second in range(SECONDS):
        values = {
            "output_tokens_per_s": 100.0 if second < 1000 else 300.0,
            "kv_usage": None if second < 10 else 0.5,
        }
        facts: list[Fact] = [SeriesFact(BEGAN + second, "llama", values)]
        if second == 1000:
            facts.append(MarkFact(BEGAN + second, "llama", Mark(BEGAN + second, "max_num_seqs 64")))
            facts.append(OutcomeFact(BEGAN + second, "load", "llama", msgspec.Raw(outcome)))
        writer.write(BEGAN + second, facts)
    writer.close(BEGAN + SECONDS - 1)
    return path


def test_the_answer_is_what_the_seconds_say(tmp_path: Path) -> None:
    def keyframe(time: float) -> Iterator[Fact]:
        yield EngineFact(time, "llama", "vllm")

    path = tmp_path / "run.llmtop"
    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN), keyframe)
    tokens = [0.0, 100.0, 500.0, 200.0]
    for second, value in enumerate(tokens):
        values = {"output_tokens_per_s": value, "ttft_p95_high": 0.1 * second}
        facts: list[Fact] = [SeriesFact(BEGAN + second, "llama", values)]
        if second == 2:
            facts.append(
                EventFact(BEGAN + 2, Event(BEGAN + 2, "state", "llama SATURATED: no more tok/s"))
            )
            facts.append(EventFact(BEGAN + 2, Event(BEGAN + 2, "state", "other HUNG: 4 running")))
        writer.write(BEGAN + second, facts)
    failed = Event(BEGAN + 3, "error", f"llama failed: out of memory {HOSTILE}; more is in the log")
    writer.write(BEGAN + 3.5, [EventFact(BEGAN + 3.5, failed)])
    writer.close(BEGAN + 4)
    summary = read_recording(path, "run")[0].summary
    assert "200 output tokens per second on average and 500 at most" in summary
    assert "TTFT p95 up to 300ms, worst state SATURATED, failed: out of memory" in summary
    assert "more is in the log" not in summary and "HUNG" not in summary
    write_report(str(tmp_path / "r.html"), read_recording(path, "run"), BEGAN)
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_long_recordings_are_thinned_by_means(path: Path) -> None:
    run = read_recording(path, "run")[0]
    points = run.document["series"]["llama"]["output_tokens_per_s"]
    assert POINTS / 2 <= len(points) <= 2 * POINTS
    assert points[0] == [0.0, 100.0] and points[-1][1] == 300.0
    assert points[-1][0] > SECONDS * 0.95
    assert run.document["series"]["llama"]["kv_usage"][-1][1] == 0.5


def test_changes_events_and_results_appear_once(path: Path, tmp_path: Path) -> None:
    runs = read_recording(path, "run")
    assert [run.kind for run in runs] == ["recording", "load"]
    assert runs[1].label == "run, load 1"  # several recordings may have one each
    write_report(str(tmp_path / "r.md"), runs, BEGAN)
    assert "Side by side" not in (tmp_path / "r.md").read_text()  # one run, and its result
    text = (tmp_path / "r.md").read_text().replace("\\", "")
    assert text.count("llama: max_num_seqs 64") == 1 and text.count("| event |") == 1
    assert "KV cache: lowest 50%, mean 50%, highest 50%" in text
    assert "vllm 0.32.0" in text and "590 answered" in text
    write_report(str(tmp_path / "r.html"), runs, BEGAN)
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page and "Output tokens, llama" in page


@pytest.mark.parametrize("changes", [1, 60])
def test_a_chart_names_its_lines_and_is_as_large_as_with_one_change(
    tmp_path: Path, changes: int
) -> None:
    path = tmp_path / "many.llmtop"
    writer = RecordingWriter(path, Head(BEGAN, began=BEGAN, llmtop="0.9"), lambda time: ())
    for second in range(60):
        at = BEGAN + second
        facts: list[Fact] = [SeriesFact(at, "llama", {"kv_usage": 0.5})]
        if second < changes:
            facts.append(MarkFact(at, "llama", Mark(at, f"max_num_seqs {second}")))
        writer.write(at, facts)
    writer.close(BEGAN + 59)
    write_report(str(tmp_path / "r.json"), read_recording(path, "run"), BEGAN)
    report = json.loads((tmp_path / "r.json").read_text())
    chart = report["sections"][0]["charts"][0]
    assert [one["name"] for one in chart["series"]] == ["KV cache", "change"]
    moments = {time for time, value in chart["series"][1]["points"] if value is not None}
    assert len(moments) == changes
    write_report(str(tmp_path / "r.html"), read_recording(path, "run"), BEGAN)
    page = (tmp_path / "r.html").read_text()
    legend = re.search(r'<g transform="translate\(\d+, (\d+)[^"]*" class="legends">', page)
    assert legend is not None and 350 < int(legend[1]) < 390  # of a height of 400


def test_what_is_no_recording_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.llmtop"
    path.write_bytes(b"no recording")
    with pytest.raises(LlmtopError):
        read_recording(path, "x")
