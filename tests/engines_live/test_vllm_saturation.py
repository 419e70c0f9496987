"""``llmtop saturate`` and ``llmtop compare`` on real vLLM: a small model on the CPU."""

from __future__ import annotations

import pytest

from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME
from tests.engines_live.vllm_served import CAP
from tests.llmtop_process import Home

SMALL = ("--prompt-tokens", "32", "--output-tokens", "8", "--workers", "1")


@pytest.fixture(scope="module")
def home(vllm_home: Home) -> Home:
    return vllm_home


@pytest.fixture(scope="module")
def engine(vllm_engine: Engine) -> str:
    assert vllm_engine.home.run("set", NAME, f"max_num_seqs={CAP}").code == 0
    return NAME


def test_saturate_measures_a_real_engine(home: Home, engine: str) -> None:
    done = home.run(
        *("saturate", engine, "--slo", "ttft=1s", "--max", "32", "--level-seconds", "2"),
        *(*SMALL, "--gpu-hour", "1", "--json"),
        timeout=300,
    )
    found = done.json
    assert found["simulated"] is False and found["complete"] is True
    levels = found["levels"]
    assert levels[0]["streams"] == 4
    assert all(level["requests"]["ok"] >= 1 for level in levels)
    assert all(level["requests"]["failed"] == 0 for level in levels)
    assert found["calibration"]["chunks_per_s"] > 0
    # 40 tokens of 4 streams and more are in the cache at a time, and far from all of it.
    assert 0 < found["kv_cache"]["peak"] < 0.9
    valid = [level for level in levels if level["client"]["verdict"] == "valid"]
    if valid:
        assert found["knee"]["streams"] in [level["streams"] for level in valid]
        assert all(level["dollars_per_million_tokens"] > 0 for level in valid)
    else:
        assert found["client_limit_streams"] == 4


def test_compare_tells_one_slot_from_sixteen(home: Home, engine: str) -> None:
    # 4.6 times the tokens/s in ten pairs: one run at a thirtieth of its speed does not hide that.
    # Two slots (2.5 times) in eight pairs were hidden by one run at a fifth, as a crowded machine
    # has now and then.
    done = home.run(
        *("compare", engine, "--a", "max_num_seqs=1", "--b", f"max_num_seqs={CAP}"),
        *("--pairs", "10", "-c", str(CAP), "--run-seconds", "1", *SMALL, "--json"),
        timeout=600,
    )
    found = done.json
    assert found["restarts"] == 0
    runs = [run for pair in found["pairs"] for run in pair["runs"]]
    assert all(run["requests"]["failed"] == 0 for run in runs)
    findings = {finding["measure"]: finding for finding in found["findings"]}
    tokens = findings["output_tokens_per_s"]
    if tokens["pairs"] >= 6:
        assert done.code == 0, done.err
        verdicts = (tokens["verdict"], findings["ttft_p50_s"]["verdict"])
        assert verdicts == ("better", "better"), [run["output_tokens_per_s"] for run in runs]
        assert tokens["low"] > 1
    else:  # no room for the client, or for the engine, on this machine
        speeds = [run["output_tokens_per_s"] for run in runs]
        assert tokens["pairs_left_out"] > 0 or not all(speeds), speeds
    options = home.run("options", engine, "--json").json["options"]
    cap = next(one for one in options if one["name"] == "max_num_seqs")
    # An idle vLLM makes no step, and takes what it was told at its next one.
    assert (cap["value"] if cap["pending"] is None else cap["pending"]) == CAP
