"""The commands record and replay, as far as they need no engine."""

import json
import re
from pathlib import Path

import pytest

from llmtop.history.facts import (
    GpusFact,
    LoadFact,
    LogFact,
    OutcomeFact,
    SampleFact,
    SeriesFact,
    StepsFact,
)
from llmtop.history.recording_reader import Recording
from tests.llmtop_process import Home, free_port
from tests.report.results import load

pytestmark = pytest.mark.process


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def test_examples_of_real_engines_come_with_llmtop(home: Home) -> None:
    done = home.run("replay", "--list", "--json")
    assert done.code == 0, done.err
    examples = {one["name"]: one for one in done.json["examples"]}
    assert examples["h200-steps"]["seconds"] > 60
    assert all("H200" in one["source"] and one["title"] for one in examples.values())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["replay"], "no recording was given"),
        (["replay", *["h200-steps"] * 3], "at most two recordings"),
        (["replay", "h200-stepz"], "did you mean h200-steps?"),
        (["replay", "/nowhere.llmtop"], "no such file"),
        (["replay", "h200-steps", "--at", "soon"], "is not a time"),
        (["replay", "h200-steps"], "h200-steps.llmtop -o report.html`"),
        (["record", "absent", "-o", "x.llmtop"], "there is no engine named"),
        (["record", "absent", "-o", "x.json"], "for example -o run.llmtop"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(home: Home, args: list[str], words: str) -> None:
    done = home.run(*args)
    assert done.code == 2 and words in done.err


def test_a_report_does_not_replace_the_result_that_it_is_made_of(home: Home) -> None:
    result, link = home.folder / "load.json", home.folder / "link.json"
    result.write_text(json.dumps(load()))
    link.symlink_to(result)
    for output in (result, link):
        done = home.run("report", str(result), "-o", str(output))
        assert done.code == 2 and "another name" in done.err
    assert json.loads(result.read_text()) == load()


def test_reports_and_checks_take_the_name_of_an_example(home: Home) -> None:
    page = home.folder / "x.html"
    done = home.run("report", "h200-overload", "h200-speculation", "-o", str(page))
    assert done.code == 0, done.err
    assert "h200-overload" in page.read_text()
    unknown = home.run("report", "h200-overlord", "-o", str(page))
    assert unknown.code == 2 and "did you mean h200-overload?" in unknown.err
    # The load of this example was found; what fails is the engine that it is to be sent to.
    checked = home.run("check", "absent", "--baseline", "h200-speculation")
    assert checked.code == 2 and "there is no engine named" in checked.err
    nothing = home.run("check", "absent", "--baseline", "h200-overload")
    assert nothing.code == 1 and "holds no result of a load" in nothing.err


def test_a_load_is_recorded_with_its_result(home: Home) -> None:
    port = str(free_port())
    quick = ("--", "--startup-s", "0.1")
    done = home.run("run", "sim", "--name", "one", "--port", port, "--detach", *quick)
    assert done.code == 0, done.err
    path = home.folder / "load.llmtop"
    shape = ("--shape", "hold 4 for 3s", "--no-calibrate", "--record", str(path))
    done = home.run("load", "one", *shape)
    quiet = home.run("record", "one", "-o", str(home.folder / "quiet.llmtop"), "--for", "2.5s")
    assert quiet.code == 0 and quiet.err.count("Ctrl+C ends it") == 1  # no line for each second
    assert re.search(r"recorded \S+, [1-9]\d* kB; show it", quiet.err)
    home.stop_all()
    late = home.run("record", "one", "-o", str(home.folder / "late.llmtop"), "--for", "1s")
    assert "one is stopped" in late.err
    for words in (["forecast", "one"], ["hold", "one", "--slo", "ttft=1s", "--yes"]):
        refused = home.run(*words)
        assert refused.code == 1 and "one is stopped" in refused.err
    assert done.code == 0 and f"llmtop replay {path}" in done.err
    with Recording(path) as recording:
        kinds = {type(fact) for fact in recording.facts()}
        assert {SampleFact, LoadFact, SeriesFact, GpusFact, LogFact, StepsFact} <= kinds
        steps = next(one for one in recording.facts(kinds={"steps"}))
        assert isinstance(steps, StepsFact)
        assert {"end", "duration_s", "decode_tokens", "waiting"} <= set(steps.columns)
        assert all(-5 < end <= 0.5 for end in steps.columns["end"] if end is not None)
        outcome = next(one for one in recording.facts(kinds={"outcome"}))
        assert isinstance(outcome, OutcomeFact) and outcome.command == "load"
        answered = json.loads(bytes(outcome.document))["requests"]["ok"]
        assert answered > 0 and set(outcome.histograms) == {"ttft", "tpot", "e2e"}
        assert sum(many for _, many in outcome.histograms["ttft"]) == answered
        marks = [one.mark.label for one in recording.facts(kinds={"mark"})]  # type: ignore[attr-defined]
    assert "load" in marks
    again = home.run("load", "one", *shape)
    assert again.code == 2 and "exists already" in again.err
