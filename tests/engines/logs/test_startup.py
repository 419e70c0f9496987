"""Start-up phases from log lines, and where a start begins in a log."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llmtop.engines.core.adapter import Phase
from llmtop.engines.core.records import Step
from llmtop.engines.host import log_reader
from llmtop.engines.logs.startup import StartupLog, run_lines, run_start, write_start_line

PHASES = (
    Phase("weights", re.compile(r"shards: .* (?P<done>\d+)/(?P<total>\d+)")),
    Phase("compile", re.compile("Compiling")),
    Phase("graphs", re.compile("Capturing")),
)


def test_phases_go_forward_only() -> None:
    startup = StartupLog(PHASES)
    assert (startup.phase, startup.since) == ("", None)
    startup.feed(["noise", "shards: 30% | 1/3", "shards: 66% | 2/3"], 10.0)
    assert (startup.phase, startup.since) == ("weights 2/3", 10.0)
    startup.feed(["(Worker 1) Capturing"], 20.0)
    startup.feed(["(Worker 2) Compiling", "shards: 100% | 3/3"], 30.0)
    assert (startup.phase, startup.since) == ("graphs", 20.0)


def test_the_phases_gone_through_with_how_long_each_took() -> None:
    startup = StartupLog(PHASES)
    assert startup.steps(5.0, {}) == ()
    startup.feed(["shards: 30% | 1/3"], 10.0)
    startup.feed(["Compiling"], 12.5)
    assert startup.steps(20.0, {"weights": 2.0, "graphs": 4.0}) == (
        Step("weights", 2.5, 2.0),
        Step("compile", 7.5, None),
    )


def test_who_comes_late_does_not_know_when_a_phase_began() -> None:
    startup = StartupLog(PHASES)
    startup.feed(["shards: 30% | 1/3", "Compiling"], 100.0, late=True)
    startup.feed(["Capturing"], 103.0)
    steps = startup.steps(105.0, {})
    assert [(step.word, step.took_s) for step in steps] == [
        ("weights", None),
        ("compile", None),
        ("graphs", 2.0),
    ]


def test_each_start_has_its_own_part_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    command = ("vllm", "a\nb", "--api-key", "secret-1")
    with path.open("ab") as log:
        for started_at in (1000.25, 2000.5):
            write_start_line(log.fileno(), started_at, command)
            log.write(f"output of {started_at}\n".encode() * 10_000)
            log.flush()
    assert run_start(path, 1000.25) == 0
    first, *rest = run_lines(path, 2000.5)
    assert first.startswith("=== llmtop 1970-01-01T00:33:20.500000+00:00 starts: ")
    assert first.endswith(" starts: vllm 'a\ufffdb' --api-key '[hidden]' ===")
    assert rest == ["output of 2000.5"] * 10_000
    assert run_start(path, 3000.0) is None


def test_a_start_that_was_rotated_away_in_part_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    with path.open("ab") as log:
        log.write(b"of an earlier start\n")
        log.flush()
        write_start_line(log.fileno(), 1000.0, ("vllm",))
        os.write(log.fileno(), b"before\n")
        assert log_reader.rotate(path, limit=1)
        os.write(log.fileno(), b"after\n")
    assert list(run_lines(path, 1000.0))[1:] == ["before", "after"]
