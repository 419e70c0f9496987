"""llmtop itself on real SGLang: started, watched, loaded, turned and stopped as a person would."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engines_live.scenario import DTYPE, NAME, alive, drained, family, seen
from tests.llmtop_process import Home, command, free_port

HERE = Path(__file__).resolve().parent
FLAGS = (
    *("--served-model-name", "small", "--dtype", DTYPE, "--device", "cpu"),
    *("--attention-backend", "torch_native", "--mem-fraction-static", "0.3"),
    *("--max-total-tokens", "8192", "--context-length", "2048", "--max-running-requests", "8"),
    *("--chunked-prefill-size", "1024", "--sleep-on-idle"),
)
CPU = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"), extra=CPU, path=(HERE / "sglang_cpu",))
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def engine(home: Home, sglang_python: Path, small_model: Path) -> dict[str, object]:
    done = home.run(
        *("run", "sglang", str(small_model), "--python", str(sglang_python), "--name", NAME),
        *("--port", str(free_port())),
        *("--detach", "--json", "--", *FLAGS),
        timeout=300,
    )
    assert done.code == 0, done.err
    started: dict[str, object] = done.json
    return started


def running(engine: dict[str, object]) -> float:
    with urllib.request.urlopen(f"{engine['url']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for found in text_string_to_metric_families(text)
        for sample in found.samples
        if sample.name == "sglang:num_running_reqs"
    )


def test_the_engine_is_described(home: Home, engine: dict[str, object]) -> None:
    assert engine["state"] == "ready"
    assert engine["version"] == "0.5.23"
    options = {o["name"]: o for o in home.run("options", NAME, "--json").json["options"]}
    assert options["max_running_requests"]["launch"] == 8
    assert options["max_running_requests"]["applies"] != "restart"
    assert options["chunked_prefill_size"]["value"] == 1024


def test_the_cap_turns_under_load_and_no_request_fails(
    home: Home, engine: dict[str, object]
) -> None:
    def change(pair: str) -> None:
        done = home.run("set", NAME, pair, "--json")
        assert done.code == 0, done.err + done.out

    flags = ("-c", "8", "-d", "300", "--prompt-tokens", "64", "--output-tokens", "60")
    with subprocess.Popen(
        command("load", NAME, *flags, "--json"),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as load:
        seen(lambda: running(engine) >= 6, 60)
        sample = home.run("once", NAME, "--window", "3", "--json").json
        assert sample["kv_tokens_total"] == 8192
        assert sample["output_tokens_per_s"] > 0
        change("max_running_requests=3")
        seen(lambda: running(engine) <= 3, 30)  # it drains: the running ones finish
        change("max_running_requests=8")
        seen(lambda: running(engine) >= 6, 30)
        change("chunked_prefill_size=256")
        report = drained(load)
    assert report["requests"]["failed"] == 0, report["errors"]
    assert report["requests"]["ok"] > 8


def test_stop_with_open_streams_ends_within_its_grace(
    home: Home, engine: dict[str, object]
) -> None:
    pids = family(int(str(engine["pid"])))
    assert len(pids) >= 3  # HTTP server, scheduler, detokenizer
    flags = ("-c", "4", "-d", "300", "--prompt-tokens", "16", "--output-tokens", "900")
    with subprocess.Popen(
        command("load", NAME, *flags),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as load:
        try:
            seen(lambda: running(engine) >= 4, 60)
            begun = time.monotonic()  # by itself SGLang would wait until all is served
            done = home.run("stop", NAME, "--grace", "4", timeout=60)
            assert done.code == 0, done.err
            assert time.monotonic() - begun < 4 + 20  # the rest is a crowded machine
            assert [pid for pid in pids if alive(pid)] == []
        finally:
            load.kill()
    (record,) = home.run("ps", "--json").json["engines"]
    assert record["state"] == "stopped"
