"""What an engine decided for options that its arguments left open, out of its own log."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.host.safe_text import clean
from llmtop.engines.logs.reported_options import find_effective, read_effective
from llmtop.engines.logs.startup import start_mark
from llmtop.engines.registry import ADAPTERS
from llmtop.operations.session import EngineSession
from tests.fake_fetch import FakeFetch
from tests.folders import TESTS

DATA = TESTS / "data"
STARTED = 1_795_327_400.0


def recorded(name: str) -> list[str]:
    text = gzip.decompress((DATA / f"{name}.log.gz").read_bytes()).decode()
    return [clean(line) for line in text.splitlines()]


def told(kind: str, lines: list[str]) -> dict[str, OptionValue]:
    adapter = ADAPTERS[kind]
    return find_effective(lines, adapter.effective, adapter.options)


def test_vllm_on_a_gpu_tells_what_it_decided() -> None:
    assert told("vllm", recorded("vllm/start_h200_0.26")) == {
        "max_model_len": 8192,
        "tensor_parallel_size": 1,
        "quantization": "None",
        "enforce_eager": False,
        "kv_cache_dtype": "auto",
        "enable_prefix_caching": True,
        "async_scheduling": True,
        "gpu_memory_utilization": 0.92,
    }


def test_vllm_on_a_cpu_has_no_gpu_memory_to_share() -> None:
    found = told("vllm", recorded("vllm/start_cpu_0.32"))
    assert found["enable_prefix_caching"] is True
    assert "gpu_memory_utilization" not in found
    assert "async_scheduling" not in found  # this version says so only where it is off


def test_vllm_says_that_speculation_switched_asynchronous_scheduling_off() -> None:
    line = (
        "(APIServer pid=7) WARNING 11-26 10:15:49 [vllm.py:1605] Async scheduling not supported "
        "with ngram-based speculative decoding and will be disabled."
    )
    assert told("vllm", [line]) == {"async_scheduling": False}


@pytest.mark.parametrize(("version", "share"), [("0.5.16", 0.903), ("0.5.21", 0.3)])
def test_sglang_tells_its_arguments_in_either_form(version: str, share: float) -> None:
    found = told("sglang", recorded(f"sglang/server_args_{version}"))
    assert found["mem_fraction_static"] == share
    assert found["disable_radix_cache"] is False
    assert found["schedule_policy"] == "fcfs"
    assert found["kv_cache_dtype"] == "auto"
    assert found["max_prefill_tokens"] == 16384
    assert "quantization" not in found  # None: nothing was decided
    assert "max_queued_requests" not in found


def test_sglang_tells_in_the_end_how_many_it_runs_and_how_long_they_may_be() -> None:
    found = told("sglang", recorded("sglang/start_0.5.16"))
    assert (found["max_running_requests"], found["context_length"]) == (4096, 8192)


def test_what_comes_later_in_the_log_changes_nothing() -> None:
    lines = recorded("vllm/start_h200_0.26")
    quoted = "prompt: 'Desired GPU memory utilization is (0.1, 1 GiB)', Asynchronous scheduling is "
    assert told("vllm", [*lines, quoted + "disabled."]) == told("vllm", lines)


async def test_the_options_of_an_engine_show_what_its_start_told(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    lines = "\n".join(recorded("vllm/start_h200_0.26"))
    log.write_text(f"{start_mark(STARTED)}vllm serve m ===\n{lines}\n")
    adapter, url = ADAPTERS["vllm"], "http://127.0.0.1:9"
    spec = LaunchSpec("vllm", "one", "m", "127.0.0.1", 9, args=("--max-model-len", "9000"))
    record = EngineRecord(spec, (), (), 7, 1, "boot", url, str(log), None, STARTED)
    session = EngineSession(Endpoint("one", adapter, url, record=record), FakeFetch({}))
    options = {option.name: option for option in (await session.read_options()).options}
    await session.close()
    assert options["gpu_memory_utilization"].value == 0.92
    assert options["gpu_memory_utilization"].launch == 0.92
    assert options["enable_prefix_caching"].value is True
    assert options["max_model_len"].value == 8192  # the engine knows better than its arguments
    assert options["max_num_seqs"].value is None


def test_another_start_in_the_same_log_tells_nothing(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    lines = "\n".join(recorded("vllm/start_h200_0.26"))
    log.write_text(f"{start_mark(STARTED)}vllm serve m ===\n{lines}\n")
    adapter = ADAPTERS["vllm"]
    assert read_effective(log, STARTED, adapter.effective, adapter.options)
    assert read_effective(log, STARTED + 1, adapter.effective, adapter.options) == {}
