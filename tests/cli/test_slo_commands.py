"""``llmtop forecast``, ``hold`` and ``tune`` as a person types them, on the simulated engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.history.facts import OutcomeFact
from llmtop.history.recording_reader import Recording
from tests.llmtop_process import Home, home_with_engine

pytestmark = pytest.mark.process

ENGINE = "one"
PATIENCE_S = 60.0
SLO = ("--slo", "ttft=1s,tpot=50ms")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    flags = ("--startup-s", "0", "--max-num-seqs", "64")
    with home_with_engine(tmp_path_factory.mktemp("slo"), ENGINE, *flags) as made:
        yield made
        made.run("hold", ENGINE, "--stop")


def outcome(path: Path) -> tuple[str, object]:
    """The command of a recording, and what it found."""
    with Recording(path) as recording:
        (found,) = recording.facts(kinds={"outcome"})
    assert isinstance(found, OutcomeFact)
    return found.command, json.loads(bytes(found.document))


def is_ended(path: Path) -> bool:
    with Recording(path) as recording:
        return bool(list(recording.facts(kinds={"end"})))


def held(home: Home) -> object:
    return json.loads(home.run("ps", "--json").out)["engines"][0]["hold"]


def test_a_hold_in_the_background_is_seen_keeps_others_out_and_ends(home: Home) -> None:
    path, page = home.folder / "background.llmtop", home.folder / "background.md"
    files = ("--record", str(path), "--report", os.path.relpath(page, home.folder))
    done = home.run("hold", ENGINE, *SLO, "--detach", "--yes", "--json", *files)
    assert done.code == 0, done.err
    pid = json.loads(done.out)["pid"]
    found = held(home)
    assert isinstance(found, dict)
    assert (found["pid"], found["slo"], found["detached"]) == (pid, SLO[1], True)
    own = {"max_num_seqs": 64, "max_num_batched_tokens": 8192, "max_queued_requests": 0}
    assert found["own"] == own
    assert f"pid {pid}" in home.run("ps").out
    second = home.run("hold", ENGINE, *SLO, "--yes", "--for", "5")
    assert second.code == 1
    assert f"(pid {pid}) already holds this engine" in second.err
    assert home.run("hold", ENGINE, "--stop").code == 0
    assert held(home) is None
    assert "no process holds" in home.run("hold", ENGINE, "--stop").err
    # Both files are whole as soon as --stop returns.
    assert is_ended(path) and outcome(path)[0] == "hold"
    assert f"Held SLO on {ENGINE}" in page.read_text() and "in time" in page.read_text()


def test_a_hold_in_the_background_that_ends_by_itself_writes_its_report(home: Home) -> None:
    page = home.folder / "timed.json"
    done = home.run("hold", ENGINE, *SLO, "--detach", "--yes", "--for", "1s", "--report", str(page))
    assert done.code == 0, done.err
    ends = time.monotonic() + PATIENCE_S
    while not page.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert json.loads(page.read_text())["kind"] == "report"


def test_a_report_that_cannot_be_written_is_told_before_a_hold_begins(home: Home) -> None:
    done = home.run("hold", ENGINE, *SLO, "--detach", "--yes", "--report", "nowhere/r.html")
    assert done.code == 2 and "there is no folder nowhere" in done.err
    assert held(home) is None


def test_a_hold_in_the_background_knows_the_limits_of_the_file(home: Home) -> None:
    file = home.folder / "limits.toml"
    file.write_text('[slos.chat]\nttft = "1s"\n')
    relative = os.path.relpath(file, home.folder)
    done = home.run(
        "hold", ENGINE, "--slo", "@chat", "--detach", "--yes", "--json", "--config", relative
    )
    assert done.code == 0, done.err
    assert home.run("hold", ENGINE, "--stop").code == 0


def test_a_hold_reports_what_it_did(home: Home) -> None:
    path, page = home.folder / "held.llmtop", home.folder / "held.md"
    done = home.run(
        "hold", ENGINE, *SLO, "--yes", "--for", "1s", "--json", "--record", str(path),
        "--report", str(page),
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "in time" in page.read_text() and ENGINE in page.read_text()
    assert outcome(path) == ("hold", found)
    assert found["setup"]["engine"]["kind"] == "sim"
    assert found["restored"] is True and found["actions"] == []
    assert {"name", "slo", "seconds", "accepted", "refused", "late", "goodput_per_s"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("hold", ENGINE), 2, "no latency limits were given"),
        (("hold", ENGINE, "--slo", "e2e=3s", "--yes"), 2, "e2e alone cannot be held"),
        (("hold", ENGINE, *SLO), 2, "add --yes to agree"),
        (("hold", ENGINE, *SLO, "--batch", "8..", "--yes"), 2, "--batch"),
        (("tune", ENGINE, *SLO), 2, "tune needs exactly one load"),
        (("tune", ENGINE, *SLO, "--rate", "5", "--options", "speed"), 2, "choose from"),
        (("tune", ENGINE, *SLO, "--watch", "--rate", "5"), 2, "--watch sends no load"),
        (
            ("tune", ENGINE, *SLO, "--rate", "5", "--run-seconds", "25", "--max-time", "20s"),
            2,
            "a run of 25s and the restore do not fit into 20s",
        ),
        (
            ("tune", ENGINE, *SLO, "--load", "hold 5 for 1m", "--max-time", "20s"),
            2,
            "a run of 60s and the restore do not fit into 20s",
        ),
        (("forecast", ENGINE, "--rate", "5", "--streams", "5"), 2, "--rate or --streams"),
        (("forecast", ENGINE, "--prompt-tokens", "5..2"), 2, "not a range from low to high"),
        (("hold", ENGINE, *SLO, "--batch", "9..2", "--yes"), 2, "as in 32..256"),
        (("hold", ENGINE, "--stop", "--detach"), 2, "--stop ends a hold"),
        (("hold", ENGINE, *SLO, "--yes", "--record", "x.json"), 2, "does not end in .llmtop"),
        (("hold", ENGINE, *SLO, "--yes", "--report", "x.pdf"), 2, "cannot be written as"),
        (("tune", ENGINE, *SLO, "--rate", "5", "--report", "x.pdf"), 2, "cannot be written as"),
    ],
)
def test_what_cannot_be_meant_costs_one_clear_line(
    home: Home, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = home.run(*arguments)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err


def test_an_engine_that_did_nothing_has_no_forecast(home: Home) -> None:
    done = home.run("forecast", ENGINE, "--listen", "0s")
    assert done.code == 1
    assert "no forecast: only 0 steps" in done.err and "ask again" in done.err
    told = home.run("forecast", ENGINE, "--listen", "0s", "--json")
    assert told.code == 1
    found = json.loads(told.out)
    assert found["refused"].startswith("only 0 steps") and found["twin"] is None


def test_a_load_without_any_problem_has_nothing_to_gain(home: Home, tmp_path: Path) -> None:
    path, page = tmp_path / "tune.llmtop", tmp_path / "tune.html"
    done = home.run(
        *("tune", ENGINE, "--slo", "ttft=30s,tpot=5s", "--rate", "4", "--run-seconds", "2s"),
        *("--prompt-tokens", "16", "--output-tokens", "4", "--workers", "1", "--json"),
        *("--record", str(path), "--report", str(page)),
        timeout=120,
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert outcome(path) == ("tune", found)
    assert f"Tuning of {ENGINE}" in page.read_text() and "nothing to gain" in page.read_text()
    assert (found["verdict"], found["runs"], found["restored"]) == ("nothing to gain", 1, True)
    options = json.loads(home.run("options", ENGINE, "--json").out)["options"]
    values = {one["name"]: one["value"] for one in options}
    assert (values["max_num_seqs"], values["max_queued_requests"]) == (64, 0)
