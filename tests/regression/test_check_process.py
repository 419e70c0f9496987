"""``llmtop check`` on simulated engines that run as processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.llmtop_process import Home, free_port

pytestmark = [pytest.mark.process, pytest.mark.more]

LOAD = ("-c", "4", "-d", "1", "--output-tokens", "16", "--workers", "1", "--no-calibrate", "--json")
CHECK = ("--runs", "3", "--workers", "1", "--no-calibrate", "--json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    for name, speed in (("fast", "0.4"), ("slow", "0.1")):
        started = home.run(
            "run", "sim", "--detach", "--json", "--port", str(free_port()), "--name", name, "--",
            "--startup-s", "0", "--speed", speed,
        )  # fmt: skip
        assert started.code == 0, started.err
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def baseline(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "load.json"
    path.write_text(home.run("load", "fast", *LOAD, timeout=60).out)
    return path


def test_a_slow_engine_is_worse_in_turn_with_the_engine_of_the_baseline(
    home: Home, baseline: Path, tmp_path: Path
) -> None:
    done = home.run(
        "check", "slow", "--baseline", str(baseline), "--budget", "tok_s=-30%", *CHECK,
        "--junit", str(tmp_path / "j.xml"), "--summary", str(tmp_path / "s.md"),
        "--report", str(tmp_path / "r.html"), timeout=120,
    )  # fmt: skip
    assert done.code == 1, done.err
    found = done.json
    assert (found["verdict"], found["in_turn"], found["against"]) == ("worse", True, "fast")
    measure = found["measures"][0]
    assert measure["high"] < 0.7 and measure["runs"] == measure["baseline_runs"] == 3
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "1"
    assert "worse than the baseline" in (tmp_path / "s.md").read_text()
    assert "slow is worse than the baseline" in (tmp_path / "r.html").read_text()


def test_the_same_engine_is_as_good_and_its_runs_become_a_baseline(
    home: Home, baseline: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "base.json"
    wide = ("--budget", "tok_s=-60%")
    done = home.run(
        "check", "fast", "--baseline", str(baseline), *wide, *CHECK, "--write-baseline", str(kept),
        timeout=120,
    )  # fmt: skip
    assert done.code in (0, 3), done.err
    assert done.json["in_turn"] is False and done.json["verdict"] != "worse"
    assert len(json.loads(kept.read_text())["runs"]) == 3
    again = home.run("check", "fast", "--baseline", str(kept), *wide, *CHECK, timeout=120)
    assert again.code in (0, 3) and again.json["measures"][0]["baseline_runs"] == 3
