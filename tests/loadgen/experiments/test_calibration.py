"""What the client can sustain: tried out with real workers, remembered, and held against levels."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llmtop import LlmtopError
from llmtop.engines.host.processes import Processes
from llmtop.loadgen.client.paced_server import serving
from llmtop.loadgen.core.client_capacity import Calibration
from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
from llmtop.loadgen.experiments.calibration import calibrate
from llmtop.loadgen.experiments.saturation import Saturation, SaturationResult
from llmtop.loadgen.statistics.client_health import VALID, against_capacity
from llmtop.loadgen.workers.load import Load
from llmtop.loadgen.workload.plan import Plan, Prompts, Target
from llmtop.operations.calibrated import _Kept, calibrated, calibration_words, remembered
from llmtop.values import replace
from tests.llmtop_process import Home
from tests.virtual_load import VirtualLoad

FOUND = Calibration(48_000.0, 1, 20.8, 0.02, 1000.0, 0.5)


def test_real_workers_tell_what_a_chunk_costs() -> None:
    left: list[float] = []
    # Long enough that a worker on a crowded machine gets a core in it.
    found = calibrate(1, seconds=3.0, on_left=left.append)
    # A chunk takes some 10 us, several times that where the machine is crowded.
    assert 2 < found.us_per_chunk < 1000
    assert found.chunks_per_s == pytest.approx(1e6 / found.us_per_chunk, rel=0.01)
    assert found.streams == int(found.chunks_per_s / 50)
    assert left == sorted(left, reverse=True) and left[0] > 1.0


def test_above_seven_tenths_of_it_the_client_is_strained_and_no_figure_is_spoilt() -> None:
    health = ClientHealth(VALID, "kernel")
    assert against_capacity(health, FOUND, 33_000.0) is health
    assert against_capacity(health, FOUND, None) is health
    judged = against_capacity(health, FOUND, 36_000.0)
    assert judged == replace(health, strain=("75% of what it carries",))
    twice = against_capacity(replace(health, strain=("worker CPU 84%",)), FOUND, 36_000.0)
    assert twice.strain == ("worker CPU 84%", "75% of what it carries")


class Chunky(VirtualLoad):
    """An engine whose snapshots tell how many gaps there were in the last second."""

    def snapshot(self) -> LoadSnapshot:
        gaps = 1000 * self.level  # a thousand chunks a second and stream
        return replace(
            super().snapshot(), itl=LatencySummary(0.001, 0.001, 0.001, gaps, window_s=1.0)
        )


def test_a_search_goes_on_where_the_client_is_strained_and_says_it() -> None:
    load = Chunky(3, 64)
    found = replace(FOUND, chunks_per_s=20_000.0)  # so at most 14 streams
    saturation = Saturation(None, load.now, top=64, seconds=1.0, calibration=found)
    load.on_record = saturation.take
    saturation.begin(load)
    while not isinstance(result := saturation.poll(), SaturationResult):
        load.pass_time(0.1)
    assert result.ceiling is None and result.calibration == found
    assert all(level.valid for level in result.levels)
    assert [bool(one.health.strain) for one in result.levels[:3]] == [False, False, True]


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., tuple[Calibration, bool]]:
    tried: list[int] = []

    def asked(boot: str = "b", workers: int = 1, now: float = 1000.0, load: float = 0.5,
              recalibrate: bool = False) -> tuple[Calibration, bool]:  # fmt: skip
        def measure(count: int, **_: object) -> Calibration:
            tried.append(count)
            return replace(FOUND, workers=count, at=now, load=load)

        return calibrated(
            tmp_path / "state", boot, workers, recalibrate=recalibrate, clock=lambda: now,
            measure=measure, load=lambda: load,
        )  # fmt: skip

    return asked


def test_it_is_remembered_for_this_boot_an_hour_and_a_machine_as_busy(
    ask: Callable[..., tuple[Calibration, bool]], tmp_path: Path
) -> None:
    def known(boot: str, now: float = 1000.0) -> Calibration | None:
        return remembered(tmp_path / "state", boot, 1, clock=lambda: now, load=lambda: 0.5)

    assert known("b") is None
    assert ask() == (FOUND, False)
    assert known("b") == FOUND and known("c") is None and known("b", 4700.0) is None
    assert ask() == (FOUND, True)
    assert ask(workers=2)[1] is False
    assert ask()[1] and ask(workers=2)[1]
    assert ask(now=1000.0 + 3601)[1] is False  # too old
    assert ask(now=4700.0, load=1.6)[1] is False  # busier than it was
    assert ask(now=4700.0, load=0.2)[1] is True
    assert ask(boot="c", now=4700.0)[1] is False
    assert ask(boot="c", now=4700.0, recalibrate=True)[1] is False
    (tmp_path / "state" / "calibration.json").write_text("{nonsense")
    assert ask(boot="c", now=4700.0)[1] is False
    assert ask(boot="c", now=4700.0)[1] is True


def test_where_nothing_can_be_written_it_is_tried_out_each_time(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    for _ in range(2):
        found, remembered = calibrated(
            tmp_path / "state", "b", 1, measure=lambda *_, **__: FOUND, load=lambda: 0.5
        )
        assert (found, remembered) == (FOUND, False)


def test_it_is_said_in_round_numbers() -> None:
    assert calibration_words(replace(FOUND, chunks_per_s=48_321.0)) == (
        "this client can sustain about 48,000 chunks/s here (960 streams of 50 tok/s; 1 worker, "
        "21 us of CPU a chunk)"
    )
    assert "waited for a core 60% of the time" in calibration_words(replace(FOUND, waited=0.6))


def test_the_verb_says_it_and_needs_no_engine(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    done = home.run("calibrate", "--workers", "1", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["workers"] == 1 and found["chunks_per_s"] > 0
    assert found["streams_of_50_tokens_per_s"] == int(found["chunks_per_s"] / 50)
    assert done.err == ""
    said = home.run("calibrate", "--workers", "1")
    assert said.out.startswith("This client can sustain about ") and said.out.count("\n") == 1
    assert "socket.send" not in said.err


def test_a_worker_that_tells_nothing_makes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "spent", lambda load: [(5, 5, 5)])
    with pytest.raises(LlmtopError, match="could not be calibrated"):
        calibrate(1, seconds=0.2)


def carries(health: ClientHealth) -> bool:
    return any("of what it carries" in one for one in health.strain)


def test_a_load_is_held_against_it_live_and_at_its_end() -> None:
    slow = replace(FOUND, chunks_per_s=100.0)
    verdicts = []
    with serving(0.01, 0.01) as (_, url):
        for found in (FOUND, slow):
            with Load(Target(url, "m"), Prompts((3, 3), (20, 20)), workers=1,
                      calibration=found) as load:  # fmt: skip
                load.start(Plan(shape="hold 4 for 2s"))
                live = False
                while not load.finished:
                    select.select([load], [], [], 0.05)
                    live |= carries(load.snapshot().health)
                verdicts.append((live, carries(load.result().health)))
    assert verdicts == [(False, False), (True, True)]


def test_a_load_is_judged_at_its_top_and_not_by_its_average() -> None:
    found = replace(FOUND, chunks_per_s=800.0)  # 560 are too many: sixteen of these make 1,500
    prompts, paced = Prompts((3, 3), (20, 20)), serving(0.01, 0.01)
    with (
        paced as (_, url),
        Load(Target(url, "m"), prompts, workers=1, window_s=1.0, calibration=found) as load,
    ):
        load.start(Plan(shape="hold 16 for 1500ms, hold 1 for 4s"))
        while not load.finished:
            select.select([load], [], [], 0.05)
            load.snapshot()
        run = load.result()
    assert run.chunks_per_s is not None and run.chunks_per_s < 560
    assert carries(run.health)


@pytest.mark.more
def test_the_load_verb_says_what_is_known_and_tries_out_what_is_not(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    with serving(0.01, 0.01) as (_, url):
        flags = ("load", url, "-c", "2", "-d", "0.5", "--output-tokens", "8", "--workers", "1")
        left_out = home.run(*flags, "--no-calibrate", "--json")
        assert left_out.code == 0 and left_out.json["calibration"] is None
        first = home.run(*flags, "--json")
        assert first.json["calibration"]["chunks_per_s"] > 100
        known = _Kept(Processes().boot_id, [replace(FOUND, at=time.time(), load=1e6)])
        kept = tmp_path / "state" / "llmtop" / "calibration.json"
        kept.write_bytes(msgspec.json.encode(known))
        said = home.run(*flags)
        assert "calibrating" not in said.err
        assert "this client can sustain about 48,000 chunks/s here" in said.err.splitlines()[0]
        again = home.run(*flags, "--json")
        assert again.json["calibration"]["chunks_per_s"] == 48_000.0 and again.err == ""
        saved = tmp_path / "run.jsonl"
        renewed = home.run(*flags, "--json", "--calibrate", "--save", str(saved)).json[
            "calibration"
        ]
        assert renewed["time"] > known.found[0].at
        # The file's clock begins with the load, not with what was tried out before it.
        rows = [json.loads(line) for line in saved.read_text().splitlines()]
        assert rows and min(row["time"] for row in rows) > renewed["time"]
