"""``llmtop saturate`` and ``llmtop compare`` on a simulated engine that runs as a real process."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine_page import running
from tests.llmtop_process import ROOT, Home, command, free_port
from tests.tiers import first

pytestmark = pytest.mark.process

CAP = 8  # max_num_seqs
SHORT = ("--prompt-tokens", "16", "--workers", "1")
VALID = "valid"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def engine(home: Home) -> str:
    port = str(free_port())
    # A step takes 25 ms at this speed: hiccups of a crowded machine are small beside it.
    flags = ("--startup-s", "0", "--max-num-seqs", str(CAP), "--speed", "0.2")
    start = ("run", "sim", "--detach", "--json", "--port", port, "--name", "found", "--", *flags)
    started = home.run(*start)
    assert started.code == 0, started.err
    return str(started.json["name"])


def check(value: Any, schema: dict[str, Any], where: str = "$") -> None:
    """The part of JSON Schema that docs/schema uses."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
        "number": (int, float), "null": type(None),
    }  # fmt: skip
    allowed = schema.get("type", list(kinds))
    names = [allowed] if isinstance(allowed, str) else allowed
    is_bool = isinstance(value, bool)
    assert any(isinstance(value, kinds[n]) and is_bool <= (n == "boolean") for n in names), (
        f"{where} is {value!r}, not {allowed}"
    )
    if "enum" in schema:
        assert value in schema["enum"], f"{where} is {value!r}"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value), f"{where} lacks a field"
        if schema.get("additionalProperties") is False:
            assert set(value) <= set(known), f"{where} has an undocumented field"
        for name, part in value.items():
            if name in known:
                check(part, resolve(known[name]), f"{where}.{name}")
    if isinstance(value, list):
        for index, part in enumerate(value):
            check(part, resolve(schema["items"]), f"{where}[{index}]")


def quiet(levels: list[dict[str, Any]]) -> bool:
    """Whether the client's figures hold and it was short of nothing: neither was the engine then,
    which shares its cores."""
    clients = [level["client"] for level in levels]
    return all(one["verdict"] == VALID and not one["strain"] for one in clients)


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Any = SCHEMA
    for step in schema["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


SCHEMA = json.loads((ROOT / "docs" / "schema" / "findings.schema.json").read_text())


def test_saturate_finds_the_cap_of_a_real_process(home: Home, engine: str, tmp_path: Path) -> None:
    csv_path, bench = tmp_path / "levels.csv", tmp_path / "bench"
    began = time.monotonic()
    done = home.run(
        "saturate", engine, "--slo", "ttft=130ms", "--max", "16", "--level-seconds", "0.7",
        "--output-tokens", "8", *SHORT, "--gpu-hour", "3.6", "--json",
        "--save", str(csv_path), "--save-bench", str(bench), timeout=120,
    )  # fmt: skip
    found = done.json
    assert done.code == 0 or found["client_limited"], done.err
    check(found, resolve({"$ref": "#/$defs/saturation"}))
    assert (found["kind"], found["name"], found["simulated"]) == ("saturation", engine, True)
    assert found["complete"] is not found["client_limited"]
    assert found["slo"] == {"ttft_s": 0.13}
    assert [answer["share"] for answer in found["answers"]] == [0.90, 0.95, 0.99]
    levels = found["levels"]
    assert levels[0]["streams"] == 4
    for level in levels:
        assert level["energy_j"] is None and level["tokens_per_joule"] is None
        assert level["dollars_per_million_tokens"] == pytest.approx(
            1000 / level["output_tokens_per_s"]
        )
    main = found["answers"][1]
    if quiet(levels):
        # The machine kept up, so this is the engine: free slots up to the cap, queueing beyond.
        # With answers of 8 steps of 25 ms each stream above the cap adds 25 ms of waiting, so
        # twice the cap cannot hold 130 ms, and half as many again may.
        assert main["streams"] is not None and CAP - 4 <= main["streams"] < 2 * CAP
        assert main["fails_at"] is not None and main["fails_at"] <= 2 * CAP
        assert f"up to {main['streams']} streams" in found["summary"]
        assert found["knee"]["streams"] < 2 * CAP
        assert time.monotonic() - began < 60
    rows = list(csv.DictReader(csv_path.read_text().splitlines()))
    assert [int(row["streams"]) for row in rows] == [level["streams"] for level in levels]
    saved = sorted(bench.iterdir())
    assert len(saved) == len(levels)
    run = json.loads(saved[0].read_text())
    assert run["max_concurrency"] == 4
    assert run["completed"] == levels[0]["requests"]["ok"] == len(run["ttfts"])
    assert run["total_output_tokens"] == 8 * run["completed"]
    assert run["median_ttft_ms"] == pytest.approx(1000 * levels[0]["ttft_s"]["p50"], rel=0.2)


@pytest.mark.more
def test_a_search_is_held_against_the_client_and_the_cache_and_fits_other_readers(
    home: Home, engine: str, tmp_path: Path
) -> None:
    log = tmp_path / "found.hlog"
    args = ("saturate", engine, "--max", "4", "--level-seconds", "0.5", "--output-tokens", "4",
            *SHORT, "--save", str(log))  # fmt: skip
    done = home.run(*args, "--calibrate", "--json", timeout=120)
    found = done.json
    check(found, resolve({"$ref": "#/$defs/saturation"}))
    assert found["calibration"]["workers"] == 1 and found["calibration"]["chunks_per_s"] > 0
    cache = found["kv_cache"]
    assert 0 <= cache["peak"] < 0.5 and cache["reserved_bytes"] > 2**30
    assert cache["unused_bytes"] == pytest.approx(
        (1 - cache["peak"]) * cache["reserved_bytes"], rel=1e-6
    )
    assert all(level["gpu_idle"] is None for level in found["levels"])  # there is no GPU
    lines = log.read_text().splitlines()
    tags = [line.split(",")[0] for line in lines if line.startswith("Tag=")]
    assert tags[:3] == ["Tag=ttft-4", "Tag=tpot-4", "Tag=e2e-4"]
    said = home.run(*args, timeout=120)
    assert "this client can sustain about" in said.err  # remembered, so there is no waiting for it
    assert "of the KV cache was reserved and never used" in said.out
    assert found["repeated_prompts"] is None  # they are made, and new
    dataset = tmp_path / "two.jsonl"
    dataset.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    without = home.run(
        "saturate", engine, "--max", "4", "--level-seconds", "0.5", "--output-tokens", "4",
        "--workers", "1", "--dataset", str(dataset), "--no-calibrate", "--json", timeout=120,
    )  # fmt: skip
    check(without.json, resolve({"$ref": "#/$defs/saturation"}))
    repeats = without.json["repeated_prompts"]
    assert repeats["prompts"] == 2 and repeats["times_each"] == repeats["requests"] / 2 > 1
    assert without.json["calibration"] is None and "can sustain" not in without.err


@pytest.mark.more
def test_a_load_is_written_as_other_programs_write_it(
    home: Home, engine: str, tmp_path: Path
) -> None:
    log, bench = tmp_path / "run.hlog", tmp_path / "run.json"
    done = home.run(
        "load", engine, "-c", "3", "-d", "2", "--output-tokens", "4", *SHORT,
        "--save-hlog", str(log), "--save-bench", str(bench), "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = json.loads(bench.read_text())
    assert run["completed"] == done.json["requests"]["ok"] == len(run["ttfts"])
    assert run["max_concurrency"] == 3 and run["request_rate"] == "inf"
    assert run["total_output_tokens"] == 4 * run["completed"]
    assert run["median_ttft_ms"] == pytest.approx(1000 * done.json["ttft_s"]["p50"], rel=0.2)
    assert [len(gaps) for gaps in run["itls"]] == [3] * run["completed"]
    assert run["mean_itl_ms"] == pytest.approx(1000 * done.json["itl_s"]["p50"], rel=0.5)
    lines = [line.split(",") for line in log.read_text().splitlines() if line[:3] == "Tag"]
    assert {line[0] for line in lines} == {"Tag=ttft", "Tag=tpot", "Tag=e2e"}
    assert all(float(line[2]) == 1.0 for line in lines)
    said = home.run("load", engine, "-c", "2", "-d", "3", "--output-tokens", "4", *SHORT)
    assert re.search(r"^[12]s left  \d+ in flight", said.err, re.MULTILINE), said.err
    for flag, name in (("--save-bench", "x.json"), ("--save", "x.csv"), ("--save", "x.txt")):
        nowhere = home.run("load", engine, flag, f"/no/such/folder/{name}")
        assert nowhere.code == 2 and "can sustain" not in nowhere.err
        assert ("no folder" if name != "x.txt" else "neither .csv nor") in nowhere.err


def test_compare_tells_a_small_batch_from_a_large_one(home: Home, engine: str) -> None:
    done = home.run(
        "compare", engine, "--a", "max_num_seqs=2", "--b", f"max_num_seqs={CAP}", "--pairs", "4",
        "-c", "6", "--run-seconds", "0.5", "--output-tokens", "2", *SHORT, "--json", timeout=180,
    )  # fmt: skip
    # On a machine so crowded that no pair counts the verb fails, and says why; nothing else may.
    if done.code:
        assert "no pair could be counted" in done.err or "stopped early: the client" in done.err
    found = done.json
    check(found, resolve({"$ref": "#/$defs/comparison"}))
    assert found["a"] == {"name": engine, "label": "max_num_seqs=2"}
    findings = {finding["measure"]: finding for finding in found["findings"]}
    assert findings["ttft_p50_s"]["verdict"] != "worse"
    if quiet([run for pair in found["pairs"] for run in pair["runs"]]):
        assert findings["ttft_p50_s"]["verdict"] == "better"
        assert findings["ttft_p50_s"]["high"] < 1
        assert "better in TTFT p50" in found["summary"]
    assert found["calibration"]["chunks_per_s"] > 0
    orders = [pair["order"] for pair in found["pairs"]]
    assert orders[:6] == ["AA", "AA", "AB", "BA", "AB", "BA"][: len(orders)]
    assert len(orders) >= 6 or found["pairs_left_out"] == len(orders) == 3
    (option,) = [
        option
        for option in home.run("options", engine, "--json").json["options"]
        if option["name"] == "max_num_seqs"
    ]
    assert option["value"] == CAP  # as it was before


def test_ctrl_c_tells_what_is_known_and_puts_the_option_back(home: Home, engine: str) -> None:
    process = subprocess.Popen(
        command("compare", engine, "--a", "max_num_seqs=2", "--b", "max_num_seqs=4", "-c", "4",
                "--run-seconds", "600", *SHORT, "--json"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while value_of(home, engine) != 2:
            assert time.monotonic() < deadline and process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert json.loads(out)["complete"] is False
    assert "Traceback" not in err
    assert value_of(home, engine) == CAP


@pytest.mark.more
def test_a_terminal_that_hangs_up_does_not_take_the_levels_of_a_search_with_it(
    home: Home, engine: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    mine, theirs = os.openpty()
    process = subprocess.Popen(
        command("saturate", engine, "--slo", "ttft=130ms", "--max", "64", "--level-seconds", "1",
                "--output-tokens", "8", *SHORT, "--no-calibrate", "--save", str(kept)),
        env=home.environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = b""
        while b"in time" not in seen:  # the first level
            data = os.read(mine, 65536)
            assert data
            seen += data
        os.close(mine)  # what is written from now on is an error
        process.send_signal(signal.SIGHUP)
        process.wait(60)
    finally:
        process.kill()
    found = json.loads(kept.read_text())
    assert found["complete"] is False and found["levels"]


@pytest.mark.parametrize("signum", first(1, [signal.SIGTERM, signal.SIGHUP]))
def test_a_load_that_is_ended_politely_tells_and_writes_what_it_found(
    home: Home, engine: str, tmp_path: Path, signum: signal.Signals
) -> None:
    bench = tmp_path / "run.json"
    with subprocess.Popen(
        command("load", engine, "-c", "2", "-d", "600", "--output-tokens", "4", *SHORT,
                "--no-calibrate", "--save-bench", str(bench), "--json"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            url = home.url(engine)
            while running(url) == 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signum)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    found = json.loads(out)
    assert found["requests"]["ok"] > 0 and found["requests"]["cut"] == 0
    assert json.loads(bench.read_text())["completed"] == found["requests"]["ok"]


def test_compare_of_an_engine_that_somebody_else_started(
    home: Home, engine: str, tmp_path: Path
) -> None:
    (found,) = (one for one in home.run("ps", "--json").json["engines"] if one["name"] == engine)
    stranger = Home.make(tmp_path)
    options = ("--a", "max_num_seqs=2", "--b", "max_num_seqs=4")
    done = stranger.run("compare", found["url"], *options)
    assert done.code == 2, done.err
    assert "cannot be changed from here" in done.err
    assert "URL_A URL_B" in done.err
    assert value_of(home, engine) == CAP


def value_of(home: Home, engine: str) -> int:
    options = home.run("options", engine, "--json").json["options"]
    return int(next(one["value"] for one in options if one["name"] == "max_num_seqs"))


@pytest.mark.parametrize(
    ("args", "words"), first(7, [
        (("saturate", "found", "--slo", "ttft=5"), "is not a limit"),
        (("saturate", "found", "--slo", "itl=5ms"), "tpot"),
        (("saturate", "found", "--slo", "@none"), "'none'"),
        (("saturate", "nobody"), "nobody"),
        (("saturate", "found", "--save", "/no/such/folder/x.json"), "no folder"),
        (("compare", "found", "--a", "max_num_seqs=4", "--b", "max_num_seqs=8", "--save", "x.hlog"),
         ".hlog"),
        (("compare", "found"), "--a"),
        (("compare", "found", "--a", "max_num_seqs=4"), "--a"),
        (("compare", "found", "--a", "max_num_seqs=4", "--b", "max_num_seqs=4"), "the same"),
        (("compare", "found", "--a", "max_num_seqs=4", "--b", "max_num_seqs=99"), "out of range"),
        (("compare", "found", "--a", "max_num_seqs=4", "--b", "max_num_seq=9"), "did you mean"),
        (
            ("compare", "found", "--a", "gpu_memory_utilization=0.5", "--b",
             "gpu_memory_utilization=0.6"),
            "only at a restart",
        ),
        (("compare", "found", "--a", "max_num_seqs=4", "--b", "max_num_seqs=8", "--pairs", "5"),
         "even"),
        (("saturate", "http://192.0.2.1:9"), "192.0.2.1"),
    ], 2),
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(
    home: Home, engine: str, args: tuple[str, ...], words: str
) -> None:
    done = home.run(*args)
    assert done.code in (1, 2)
    assert done.out == ""
    assert words in done.err
    assert "Traceback" not in done.err and len(done.err.splitlines()) <= 2


@pytest.mark.more
def test_an_engine_that_has_ended_is_not_loaded(home: Home, engine: str) -> None:
    port = str(free_port())
    assert home.run(
        "run", "sim", "--detach", "--port", port, "--name", "gone", "--", "--startup-s", "0"
    ).code == 0  # fmt: skip
    assert home.run("stop", "gone").code == 0
    done = home.run("saturate", "gone")
    assert done.code == 1
    assert "gone is stopped" in done.err
